-- Who is on which list now, by what the destinations acknowledged.
--
-- materialized: view
--
-- One row is a member of a target. Key: audience, destination, member_key. Input: sync.sends.
-- `status` is the answer to the last thing sent: accepted, pending (the platform answers later) or unattributed (some
-- of its request failed, and the platform does not say who). `is_leaving`: a removal is under way.
with marks as (
    select
        audience,
        destination,
        member_key,
        max(sent_order) filter (
            where action <> 'remove' and status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown')
        ) as last_sent,
        coalesce(max(sent_order) filter (where action = 'remove' and status = 'accepted'), -1) as last_removed,
        coalesce(max(sent_order) filter (where action = 'remove' and status = 'pending'), -1) as last_leaving
    from sync.sends
    group by audience, destination, member_key
),

entries as (
    select
        marks.audience,
        marks.destination,
        marks.member_key,
        marks.last_sent,
        marks.last_leaving,
        min(sends.sent_at) as entered_at
    from marks
    inner join sync.sends as sends
        on
            marks.audience = sends.audience
            and marks.destination = sends.destination
            and marks.member_key = sends.member_key
    where
        marks.last_sent > marks.last_removed
        and sends.action <> 'remove'
        and sends.status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown')
        and sends.sent_order > marks.last_removed
    group by marks.audience, marks.destination, marks.member_key, marks.last_sent, marks.last_leaving
)

select
    entries.audience,
    entries.destination,
    sent.list_id,
    sent.profile_id,
    entries.member_key,
    sent.status,
    entries.last_leaving > entries.last_sent as is_leaving,
    entries.entered_at,
    sent.sent_at as last_sent_at,
    sent.acknowledged_at
from entries
inner join sync.sends as sent
    on
        entries.audience = sent.audience
        and entries.destination = sent.destination
        and entries.member_key = sent.member_key
        and entries.last_sent = sent.sent_order
