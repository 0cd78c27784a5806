-- A row is a product line of a web event of a profile.
-- Key: event_key, item_index.
-- materialized: view
-- Inputs: staging.event_items, core.events.
select
    items.event_key,
    events.profile_id,
    items.sku,
    items.name,
    items.image_url,
    items.product_url,
    items.item_index,
    items.quantity,
    items.price
from staging.event_items as items
inner join core.events as events
    on items.event_key = events.event_key
