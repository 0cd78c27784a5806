-- The products that were looked at in a visit, and when last.
--
-- One row is a product's name in a visit under one login (see core.visits). Key: session_key, user_id, email, name.
-- Inputs: staging.events, staging.event_items, core.visits, core.erased_identifiers.
-- materialized: incremental by session_key
--
-- Rules: a sku stands in for a missing name. What is erased, or dated at or after as_of, is as in core.visits.
with erased as (
    select
        identifier_kind,
        identifier_value,
        erased_until
    from core.erased_identifiers
),

session_views as not materialized (
    select
        events.event_key,
        events.visitor_id,
        events.session_id,
        events.user_id,
        events.email,
        events.occurred_at
    from staging.events as events
    left join erased as erased_users
        on
            erased_users.identifier_kind = 'user_id'
            and events.user_id = erased_users.identifier_value
    left join erased as erased_emails
        on
            erased_emails.identifier_kind = 'email'
            and events.email = erased_emails.identifier_value
    left join erased as erased_visitors
        on
            erased_visitors.identifier_kind = 'visitor_id'
            and events.visitor_id = erased_visitors.identifier_value
    where
        events.event_name = 'view_item'
        and events.session_id is not null
        and events.occurred_at < :as_of
        and touched_day(events.occurred_at)
        and touched_visit(events.visitor_id || '.' || events.session_id)
        and coalesce(events.occurred_at >= erased_users.erased_until, true)
        and coalesce(events.occurred_at >= erased_emails.erased_until, true)
        and (
            events.user_id is not null
            or events.email is not null
            or coalesce(events.occurred_at >= erased_visitors.erased_until, true)
        )
),

-- A visit of a source without session ids is known by its browser and its time.
walked_visits as (
    select
        session_key,
        visitor_id,
        source,
        user_id,
        email,
        started_at,
        ended_at
    from core.visits
    where session_id is null
),

walked_views as not materialized (
    select
        events.event_key,
        walked_visits.session_key,
        events.visitor_id,
        events.user_id,
        events.email,
        events.occurred_at
    from staging.events as events
    inner join walked_visits
        on
            events.visitor_id = walked_visits.visitor_id
            and events.source is not distinct from walked_visits.source
            and events.user_id is not distinct from walked_visits.user_id
            and events.email is not distinct from walked_visits.email
            and events.occurred_at between walked_visits.started_at and walked_visits.ended_at
    where
        events.event_name = 'view_item'
        and events.session_id is null
        and touched_day(events.occurred_at)
        and touched_walk(events.visitor_id || '.' || cast(cast(events.occurred_at as date) as varchar))
),

views as not materialized (
    select
        event_key,
        visitor_id || '.' || session_id as session_key,
        visitor_id,
        user_id,
        email,
        occurred_at
    from session_views
    union all
    select
        event_key,
        session_key,
        visitor_id,
        user_id,
        email,
        occurred_at
    from walked_views
)

select
    views.session_key,
    views.visitor_id,
    views.user_id,
    views.email,
    coalesce(items.name, items.sku) as name,
    max(views.occurred_at) as viewed_at
from views
inner join staging.event_items as items
    on views.event_key = items.event_key
group by
    views.session_key,
    views.visitor_id,
    views.user_id,
    views.email,
    coalesce(items.name, items.sku)
