-- What was sent to destinations, and the answer that holds.
--
-- materialized: view
--
-- One row is a member sent by a plan with one action. Key: audience, destination, plan_id, member_key, action.
-- Input: sync.ledger, where a member may have several answers to the same sending ("retry" then "accepted", "pending"
-- then "rejected"). The newest answer holds; the moment of sending is the first one.
with answers as (
    select
        audience,
        destination,
        list_id,
        plan_id,
        action,
        profile_id,
        member_key,
        identifiers,
        payload_hash,
        status,
        reason,
        request_id,
        min(sequence) over (
            partition by audience, destination, plan_id, member_key, action
        ) as sent_order,
        row_number() over (
            partition by audience, destination, plan_id, member_key, action
            order by sequence desc
        ) as recency,
        min(acknowledged_at) over (
            partition by audience, destination, plan_id, member_key, action
        ) as sent_at,
        acknowledged_at
    from sync.ledger
)

select
    audience,
    destination,
    list_id,
    plan_id,
    profile_id,
    member_key,
    request_id,
    action,
    identifiers,
    payload_hash,
    status,
    reason,
    sent_order,
    sent_at,
    acknowledged_at
from answers
where recency = 1
