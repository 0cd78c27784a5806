-- materialized: incremental by profile_id
-- What was bought.
--
-- One row is a line of an order. Key: order_key, line_number. Inputs: core.order_records, core.orders,
-- staging.order_items, core.action_profiles.
--
-- Lines of one record only, so that an order told twice is not counted twice: the shop's or CRM's where it has lines,
-- else the purchase event's.
with record_lines as (
    select
        records.order_key,
        records.record_key,
        records.is_web,
        records.updated_at,
        items.line_id,
        length(items.line_id) as line_rank,
        items.sku,
        items.name,
        items.quantity,
        items.price
    from core.order_records as records
    inner join staging.order_items as items
        on records.source = items.source and records.order_id = items.order_id
    where not records.is_web
    union all
    select
        records.order_key,
        records.record_key,
        records.is_web,
        records.updated_at,
        cast(null as text) as line_id,
        items.item_index as line_rank,
        items.sku,
        items.name,
        items.quantity,
        items.price
    from core.order_records as records
    inner join core.action_profiles as items
        on records.order_id = items.event_key
    where records.is_web and items.sku is not null
),

ranked as (
    select
        order_key,
        line_id,
        line_rank,
        sku,
        name,
        quantity,
        price,
        dense_rank() over (
            partition by order_key
            order by is_web asc, updated_at desc nulls last, record_key asc
        ) as record_choice
    from record_lines
)

select
    ranked.order_key,
    orders.profile_id,
    row_number() over (
        partition by ranked.order_key
        -- Line ids are numbers written as text: the shorter is the smaller.
        order by
            ranked.line_rank asc,
            ranked.line_id asc,
            ranked.sku asc,
            ranked.name asc,
            ranked.quantity asc,
            ranked.price asc
    ) as line_number,
    ranked.sku,
    ranked.name,
    ranked.quantity,
    ranked.price
from ranked
inner join core.orders as orders
    on ranked.order_key = orders.order_key
where ranked.record_choice = 1
