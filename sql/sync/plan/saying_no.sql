-- Who of those that are asked about has said no, or asked to be erased: what no question, and no missing plan, holds up.
--
-- One row is a member key. Key: member_key. Inputs: target.asked (member_key, profile_id), who said no (said_no.sql),
-- core.profile_merges.
--
-- Only what somebody said counts. Who merely matches no more, or is unknown to a source that stopped delivering, can
-- wait.
with people as (
    select
        member_key,
        profile_id
    from target.asked
    union all
    select
        asked.member_key,
        renamed.into_profile_id as profile_id
    from target.asked as asked
    inner join core.profile_merges as renamed
        on asked.profile_id = renamed.profile_id
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
select asked.member_key
from target.asked as asked
inner join said_no
    on asked.member_key = said_no.member_key
