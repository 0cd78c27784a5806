-- A row is identifiers that were seen together on web events of one source, and when first and last.
-- Key: source, user_id, email, visitor_id, transaction_id (of purchases only).
-- materialized: folded by visitor_id
-- Inputs: staging.events.
-- Rules: only events dated before as_of (11). Nothing is left out for an erasure: identity must know whom it concerns.
select
    source,
    user_id,
    email,
    visitor_id,
    case when event_name = 'purchase' then transaction_id end as transaction_id,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at
from staging.events
where
    occurred_at < :as_of
    and touched_event_day(occurred_at)
    and touched_event(event_key)
group by
    source,
    user_id,
    email,
    visitor_id,
    case when event_name = 'purchase' then transaction_id end
