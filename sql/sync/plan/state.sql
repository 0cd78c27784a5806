-- What one target's destination holds, by its own acknowledgements.
--
-- One row is a member key that was ever sent to the target. Key: member_key. Input: sync.ledger.
--
--   * Present is who was added, updated or refreshed (accepted, not answered yet, or nobody can tell for sure) after
--     the last removal that was accepted. `profile_id`, `payload` and `sent_at` are those of the newest such
--     sending.
--   * Leaving is who has a removal under way that nothing newer has overtaken.
--   * `refused_payload` is the payload that was rejected, where that is the last thing that was tried.
--   * A payload is a number made of its hash: it is only compared, and a number takes a sixth of the text's place.
--
-- A sending is a member in a plan with one action; its newest answer holds, its place in time is its first one. Most
-- members have one answer, or one sending, and only the others are worth a second look at the ledger. Here members and
-- sendings are told apart by numbers, which costs less than by texts: should two members have the same number, their
-- sendings still differ, and the second look is by the texts.
with answers as (
    select
        member_key,
        profile_id,
        plan_id,
        action,
        key_hash(payload_hash) as payload,
        status,
        sequence,
        acknowledged_at,
        key_hash(member_key) as member
    from sync.ledger
    where audience = :audience and destination = :destination
),

several_answers as materialized (
    select member
    from answers
    group by member
    having count(*) > 1
),

member_answers as materialized (
    select
        answers.member,
        min(answers.sequence) as sent_order,
        max(answers.sequence) as newest,
        min(answers.acknowledged_at) as sent_at,
        coalesce(
            min(key_hash(answers.plan_id || answers.action || answers.member_key))
            = max(key_hash(answers.plan_id || answers.action || answers.member_key)),
            false
        ) as is_one_sending
    from answers
    inner join several_answers
        on answers.member = several_answers.member
    group by answers.member
),

last_answers as (
    select
        answers.member_key,
        answers.profile_id,
        answers.action,
        answers.payload,
        answers.status,
        answers.sequence as sent_order,
        answers.acknowledged_at as sent_at
    from answers
    left join several_answers
        on answers.member = several_answers.member
    where several_answers.member is null
    union all
    select
        answers.member_key,
        answers.profile_id,
        answers.action,
        answers.payload,
        answers.status,
        member_answers.sent_order,
        member_answers.sent_at
    from member_answers
    inner join answers
        on
            member_answers.newest = answers.sequence
            and member_answers.member = answers.member
    where member_answers.is_one_sending
),

sendings as (
    select
        answers.member_key,
        answers.action,
        max(answers.profile_id) as profile_id,
        max(answers.payload) as payload,
        arg_max(answers.status, answers.sequence) as status,
        min(answers.sequence) as sent_order,
        min(answers.acknowledged_at) as sent_at
    from answers
    inner join member_answers
        on answers.member = member_answers.member
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
    payload,
    case when action <> 'remove' and status = 'rejected' then payload end as refused_payload,
    sent_at,
    case when action = 'remove' and status = 'accepted' then sent_order else -1 end as last_removed,
    action <> 'remove'
    and status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown') as is_present,
    false as is_leaving
from last_answers
union all
select
    marks.member_key,
    sent.profile_id,
    sent.payload,
    case when tried.status = 'rejected' then tried.payload end as refused_payload,
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
