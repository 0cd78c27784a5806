-- What one target's destination holds, by its own acknowledgements.
--
-- One row is a member key that was ever sent to the target. Key: member_key. Input: sync.ledger.
--
--   * Present is who was added, updated or refreshed (accepted, not answered yet, or nobody can tell for sure) after
--     the last removal that was accepted. `profile_id`, `payload_hash` and `sent_at` are those of the newest such
--     sending.
--   * Leaving is who has a removal under way that nothing newer has overtaken.
--   * `refused_hash` is the payload that was rejected, where that is the last thing that was tried.
--
-- A sending is a member in a plan with one action; its newest answer holds, its place in time is its first one. Most
-- members have one sending, and only the others are worth a second look at the ledger.
with answers as (
    select
        member_key,
        profile_id,
        plan_id,
        action,
        payload_hash,
        status,
        sequence,
        acknowledged_at
    from sync.ledger
    where audience = :audience and destination = :destination
),

member_answers as materialized (
    select
        member_key,
        max(profile_id) as profile_id,
        max(action) as action,
        max(payload_hash) as payload_hash,
        case when count(*) = 1 then max(status) else arg_max(status, sequence) end as status,
        min(sequence) as sent_order,
        min(acknowledged_at) as sent_at,
        count(*) = 1 or (min(plan_id) = max(plan_id) and min(action) = max(action)) as is_one_sending
    from answers
    group by member_key
),

sendings as (
    select
        answers.member_key,
        answers.action,
        max(answers.profile_id) as profile_id,
        max(answers.payload_hash) as payload_hash,
        arg_max(answers.status, answers.sequence) as status,
        min(answers.sequence) as sent_order,
        min(answers.acknowledged_at) as sent_at
    from answers
    inner join member_answers
        on answers.member_key = member_answers.member_key
    where not member_answers.is_one_sending
    group by answers.member_key, answers.plan_id, answers.action
),

marks as (
    select
        member_key,
        max(sent_order) filter (where action <> 'remove') as last_tried,
        max(sent_order) filter (
            where action <> 'remove' and status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown')
        ) as last_sent,
        coalesce(max(sent_order) filter (where action = 'remove' and status = 'accepted'), -1) as last_removed,
        coalesce(max(sent_order) filter (where action = 'remove' and status = 'pending'), -1) as last_leaving
    from sendings
    group by member_key
)

select
    member_key,
    profile_id,
    payload_hash,
    case when action <> 'remove' and status = 'rejected' then payload_hash end as refused_hash,
    sent_at,
    case when action = 'remove' and status = 'accepted' then sent_order else -1 end as last_removed,
    action <> 'remove' and status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown') as is_present,
    false as is_leaving
from member_answers
where is_one_sending
union all
select
    marks.member_key,
    sent.profile_id,
    sent.payload_hash,
    case when tried.status = 'rejected' then tried.payload_hash end as refused_hash,
    sent.sent_at,
    marks.last_removed,
    coalesce(marks.last_sent > marks.last_removed, false) as is_present,
    coalesce(
        marks.last_sent > marks.last_removed
        and marks.last_leaving > marks.last_sent,
        false
    ) as is_leaving
from marks
left join sendings as sent
    on
        marks.member_key = sent.member_key
        and marks.last_sent = sent.sent_order
left join sendings as tried
    on
        marks.member_key = tried.member_key
        and marks.last_tried = tried.sent_order
