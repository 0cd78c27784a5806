-- What one target's destination holds, by its own acknowledgements.
--
-- One row is a member key that was ever sent to the target. Key: member_key. Input: sync.sends.
--
-- Present is who was added or updated (accepted, not answered yet, or in a request of which some rows failed) after
-- the last removal that was accepted. Leaving is who has a removal under way that nothing newer has overtaken.
with sends as (
    select
        profile_id,
        member_key,
        action,
        identifiers,
        payload_hash,
        status,
        sent_order
    from sync.sends
    where audience = :audience and destination = :destination
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
    from sends
    group by member_key
)

select
    marks.member_key,
    sent.profile_id,
    sent.identifiers,
    sent.payload_hash,
    case when tried.status = 'rejected' then tried.payload_hash end as refused_hash,
    marks.last_removed,
    coalesce(marks.last_sent > marks.last_removed, false) as is_present,
    coalesce(
        marks.last_sent > marks.last_removed
        and marks.last_leaving > marks.last_sent,
        false
    ) as is_leaving
from marks
left join sends as sent
    on
        marks.member_key = sent.member_key
        and marks.last_sent = sent.sent_order
left join sends as tried
    on
        marks.member_key = tried.member_key
        and marks.last_tried = tried.sent_order
