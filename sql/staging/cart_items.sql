-- A row is a line of a CRM or shop cart, as the newest version of the cart has it.
-- Key: source, cart_id, line_id (lines without an id are kept one by one).
-- Inputs: raw.cart_items, staging.carts.
-- Rules (7): a name stands in for a missing sku; a line with neither, or with a negative quantity, is in
-- staging.rejected_rows; quantity null is 1, price null is 0. Lines of an older version are history (11).
with carts as (
    select
        source,
        cart_id,
        updated_at
    from staging.carts
),

trimmed as (
    select
        tidy(source) as source,
        tidy(cart_id) as cart_id,
        tidy(line_id) as line_id,
        tidy(sku) as sku,
        tidy(name) as name,
        tidy(image_url) as image_url,
        tidy(product_url) as product_url,
        upper(tidy(currency)) as currency,
        quantity,
        price,
        updated_at,
        loaded_at
    from raw.cart_items
),

of_this_version as (
    select
        trimmed.source,
        trimmed.cart_id,
        trimmed.line_id,
        coalesce(trimmed.sku, trimmed.name) as sku,
        coalesce(trimmed.name, trimmed.sku) as name,
        trimmed.image_url,
        trimmed.product_url,
        trimmed.currency,
        coalesce(trimmed.quantity, 1) as quantity,
        coalesce(trimmed.price, 0) as price,
        trimmed.updated_at,
        trimmed.loaded_at
    from trimmed
    inner join carts
        on
            trimmed.source = carts.source
            and trimmed.cart_id = carts.cart_id
    where
        (
            trimmed.updated_at is null
            or carts.updated_at is null
            or trimmed.updated_at = carts.updated_at
        )
        and (trimmed.sku is not null or trimmed.name is not null)
        and coalesce(trimmed.quantity, 1) >= 0
),

-- A version loaded twice brings its lines twice; one load is enough.
of_newest_load as (
    select
        source,
        cart_id,
        line_id,
        sku,
        name,
        image_url,
        product_url,
        currency,
        quantity,
        price,
        updated_at,
        loaded_at
    from of_this_version
    qualify
        dense_rank() over (
            partition by source, cart_id
            order by updated_at desc nulls last, loaded_at desc nulls last
        ) = 1
)

select
    source,
    cart_id,
    line_id,
    sku,
    name,
    image_url,
    product_url,
    currency,
    quantity,
    price,
    updated_at,
    loaded_at
from of_newest_load
qualify
    line_id is null
    or row_number() over (
        partition by source, cart_id, line_id
        order by
            sku asc,
            name asc,
            quantity asc,
            price asc,
            currency asc nulls last,
            image_url asc nulls last,
            product_url asc nulls last
    ) = 1
