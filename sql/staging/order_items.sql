-- A row is a line of an order, as the newest version of the order has it.
-- Key: source, order_id, line_id (lines without an id are kept one by one).
-- Inputs: raw.order_items, staging.orders.
-- Rules (7): a name stands in for a missing sku; a line with neither, or with a negative quantity, is in
-- staging.rejected_rows; quantity null is 1, price null is 0. Lines of an older version are history (11).
with orders as (
    select
        source,
        order_id,
        updated_at
    from staging.orders
),

trimmed as (
    select
        tidy(source) as source,
        tidy(order_id) as order_id,
        tidy(line_id) as line_id,
        tidy(sku) as sku,
        tidy(name) as name,
        upper(tidy(currency)) as currency,
        quantity,
        price,
        updated_at,
        loaded_at
    from raw.order_items
),

of_this_version as (
    select
        trimmed.source,
        trimmed.order_id,
        trimmed.line_id,
        coalesce(trimmed.sku, trimmed.name) as sku,
        coalesce(trimmed.name, trimmed.sku) as name,
        trimmed.currency,
        coalesce(trimmed.quantity, 1) as quantity,
        coalesce(trimmed.price, 0) as price,
        trimmed.updated_at,
        trimmed.loaded_at
    from trimmed
    inner join orders
        on
            trimmed.source = orders.source
            and trimmed.order_id = orders.order_id
    where
        (
            trimmed.updated_at is null
            or orders.updated_at is null
            or trimmed.updated_at = orders.updated_at
        )
        and (trimmed.sku is not null or trimmed.name is not null)
        and coalesce(trimmed.quantity, 1) >= 0
),

-- A version loaded twice brings its lines twice; one load is enough.
of_newest_load as (
    select
        source,
        order_id,
        line_id,
        sku,
        name,
        currency,
        quantity,
        price,
        updated_at,
        loaded_at
    from of_this_version
    qualify
        dense_rank() over (
            partition by source, order_id
            order by updated_at desc nulls last, loaded_at desc nulls last
        ) = 1
)

select
    source,
    order_id,
    line_id,
    sku,
    name,
    currency,
    quantity,
    price,
    updated_at,
    loaded_at
from of_newest_load
qualify
    line_id is null
    or row_number() over (
        partition by source, order_id, line_id
        order by
            sku asc,
            name asc,
            quantity asc,
            price asc,
            currency asc nulls last
    ) = 1
