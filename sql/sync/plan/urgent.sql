-- The removals of a target that no question may hold up: the person said no, or asked to be erased.
--
-- One row is a member key. Key: member_key. Inputs: target.changes, core.consents, core.suppressions, sync.opt_outs,
-- core.identifiers, core.profile_merges.
--
-- Only what somebody said counts: denied consent for the channel, and the suppressions that always apply. Who merely
-- matches no more, or is unknown to a source that stopped delivering, can wait.
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

tool_answers as (
    select
        kind,
        value,
        is_active,
        row_number() over (
            partition by destination, kind, value, channel
            order by read_at desc nulls last, occurred_at desc nulls last, is_active desc
        ) as recency
    from sync.opt_outs
    where channel in (:channel, 'all')
),

said_no as (
    select profile_id
    from core.consents
    where channel = :consent_channel and status = 'denied'
    union all
    select profile_id
    from core.suppressions
    where coalesce(channel, 'all') in (:channel, 'all') and reason in (:always_applied)
    union all
    select identifiers.profile_id
    from tool_answers
    inner join core.identifiers as identifiers
        on
            tool_answers.kind = identifiers.identifier_kind
            and tool_answers.value = identifiers.identifier_value
    where tool_answers.recency = 1 and coalesce(tool_answers.is_active, true)
)

select people.member_key
from people
inner join said_no
    on people.profile_id = said_no.profile_id
union distinct
select removals.member_key
from removals
inner join tool_answers
    on removals.member_key = tool_answers.value
where tool_answers.recency = 1 and coalesce(tool_answers.is_active, true)
