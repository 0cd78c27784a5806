-- The removals of a target that no question may hold up: the person said no, or asked to be erased.
--
-- One row is a member key. Key: member_key. Inputs: target.changes, who said no (said_no.sql), core.profile_merges.
--
-- Only what somebody said counts. Who merely matches no more, or is unknown to a source that stopped delivering, can
-- wait.
with removals as (
    select
        member_key,
        profile_id
    from target.changes
    where action = 'remove'
),

people as (
    select
        member_key,
        profile_id
    from removals
    union all
    select
        removals.member_key,
        renamed.into_profile_id as profile_id
    from removals
    inner join core.profile_merges as renamed
        on removals.profile_id = renamed.profile_id
),

said_no as (
    select
        profile_id,
        member_key
    from target.said_no
)

select people.member_key
from people
inner join said_no
    on people.profile_id = said_no.profile_id
union distinct
select removals.member_key
from removals
inner join said_no
    on removals.member_key = said_no.member_key
