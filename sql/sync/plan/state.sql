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
        acknowledged_at,
        key_hash(plan_id || action) as sending
    from sync.ledger
    where audience = :audience and destination = :destination
),

member_answers as materialized (
    select
        member_key,
        min(sequence) as sent_order,
        max(sequence) as newest,
        min(acknowledged_at) as sent_at,
        coalesce(min(sending) = max(sending), false) as is_one_sending
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
    answers.member_key,
    answers.profile_id,
    answers.payload_hash,
    case
        when answers.action <> 'remove' and answers.status = 'rejected' then answers.payload_hash
    end as refused_hash,
    member_answers.sent_at,
    case
        when answers.action = 'remove' and answers.status = 'accepted' then member_answers.sent_order
        else -1
    end as last_removed,
    answers.action <> 'remove'
    and answers.status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown') as is_present,
    false as is_leaving
from member_answers
inner join answers
    on
        member_answers.newest = answers.sequence
        and member_answers.member_key = answers.member_key
where member_answers.is_one_sending
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
