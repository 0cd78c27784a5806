-- materialized: incremental by event_key
-- What people did on the web beyond looking: carts, checkouts, purchases, leads and whatever else a shop sends.
--
-- One row is a product line of such an event; an event without lines is one row without sku. Key: event_key, item_index.
-- Inputs: staging.events, staging.event_items.
--
-- As the browser told it: no profile yet, erased people and times ahead of as_of included. Readers leave those out
-- (core.action_profiles does). Browsing is page and product views, lists, searches, clicks, scrolls and the signs that
-- a visit began or goes on; it is many times more and is read from core.visits.
with events as (
    select
        event_key,
        visitor_id,
        user_id,
        email,
        source,
        event_name,
        page_location,
        transaction_id,
        currency,
        value,
        occurred_at
    from staging.events
    where
        event_name not in (
            'page_view', 'view_item', 'scroll', 'user_engagement', 'session_start', 'first_visit', 'view_item_list',
            'select_item', 'view_search_results', 'click'
        )
        and touched_event_day(occurred_at)
        and touched_event(event_key)
),

items as (
    select
        event_key,
        sku,
        name,
        image_url,
        product_url,
        item_index,
        quantity,
        price
    from staging.event_items
    where touched_event(event_key)
)

select
    events.event_key,
    events.visitor_id,
    events.user_id,
    events.email,
    events.source,
    events.event_name,
    events.page_location,
    events.transaction_id,
    events.currency,
    items.sku,
    items.name,
    items.image_url,
    items.product_url,
    events.value,
    items.item_index,
    items.quantity,
    items.price,
    events.occurred_at
from events
left join items
    on events.event_key = items.event_key
