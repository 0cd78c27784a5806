-- A row is a product line of a web event, of the copy of the event that staging.events kept.
-- Key: event_key, item_index.
-- materialized: incremental by event_key
-- Inputs: raw.event_items, staging.events.
-- Rules (7): a name stands in for a missing sku; a line with neither, or with a negative quantity, is in
-- staging.rejected_rows; quantity null is 1, price null is 0.
with events as (
    select
        event_key,
        loaded_at
    from staging.events
),

trimmed as (
    select
        tidy(source) as source,
        tidy(event_key) as event_key,
        coalesce(item_index, 0) as item_index,
        tidy(sku) as sku,
        tidy(name) as name,
        category,
        brand,
        image_url,
        product_url,
        quantity,
        price,
        loaded_at
    from raw.event_items
)

select
    trimmed.source,
    trimmed.event_key,
    coalesce(trimmed.sku, trimmed.name) as sku,
    coalesce(trimmed.name, trimmed.sku) as name,
    trimmed.category,
    trimmed.brand,
    trimmed.image_url,
    trimmed.product_url,
    trimmed.item_index,
    coalesce(trimmed.quantity, 1) as quantity,
    coalesce(trimmed.price, 0) as price,
    trimmed.loaded_at,
    key_hash(trimmed.event_key) as event_hash
from trimmed
inner join events
    on trimmed.event_key = events.event_key
where
    (
        trimmed.loaded_at is null
        or events.loaded_at is null
        or trimmed.loaded_at = events.loaded_at
    )
    and (trimmed.sku is not null or trimmed.name is not null)
    and coalesce(trimmed.quantity, 1) >= 0
qualify
    row_number() over (
        partition by trimmed.event_key, trimmed.item_index
        order by
            trimmed.loaded_at desc nulls last,
            trimmed.sku asc nulls last,
            trimmed.name asc nulls last,
            trimmed.quantity asc nulls last,
            trimmed.price asc nulls last,
            trimmed.image_url asc nulls last,
            trimmed.product_url asc nulls last
    ) = 1
