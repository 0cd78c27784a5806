-- A row is a product line of a web event, of the copy of the event that staging.events kept.
-- Key: event_key, item_index.
-- materialized: incremental by event_key
-- Inputs: raw.event_items, staging.events.
-- A line finds its event by the hash of the key, and only what comes twice is put in order: both are cheaper than
-- joining and sorting all lines by a long text. Should two keys have one hash, a line comes twice, and is here once.
-- Rules (7): a name stands in for a missing sku; a line with neither, or with a negative quantity, is in
-- staging.rejected_rows; quantity null is 1, price null is 0.
with events as (
    select
        event_hash,
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
        loaded_at,
        key_hash(tidy(event_key)) as event_hash
    from raw.event_items
),

lines as materialized (
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
        trimmed.event_hash
    from trimmed
    inner join events
        on
            trimmed.event_hash = events.event_hash
            and (
                trimmed.loaded_at is null
                or events.loaded_at is null
                or trimmed.loaded_at = events.loaded_at
            )
    where
        trimmed.event_key is not null
        and (trimmed.sku is not null or trimmed.name is not null)
        and coalesce(trimmed.quantity, 1) >= 0
),

repeated as (
    select
        event_hash,
        item_index
    from lines
    group by event_hash, item_index
    having count(*) > 1
),

chosen as (
    select
        lines.*,
        1 as choice
    from lines
    anti join repeated
        on lines.event_hash = repeated.event_hash and lines.item_index = repeated.item_index
    union all
    select
        lines.*,
        row_number() over (
            partition by lines.event_key, lines.item_index
            order by
                lines.loaded_at desc nulls last,
                lines.sku asc nulls last,
                lines.name asc nulls last,
                lines.quantity asc nulls last,
                lines.price asc nulls last,
                lines.image_url asc nulls last,
                lines.product_url asc nulls last
        ) as choice
    from lines
    semi join repeated
        on lines.event_hash = repeated.event_hash and lines.item_index = repeated.item_index
)

select
    source,
    event_key,
    sku,
    name,
    category,
    brand,
    image_url,
    product_url,
    item_index,
    quantity,
    price,
    loaded_at,
    event_hash
from chosen
where choice = 1
