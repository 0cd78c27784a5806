-- What is in the carts.
--
-- One row is a product in a cart, in the order of adding. Key: cart_key, line_number. Inputs: core.cart_events,
-- core.shop_carts, staging.cart_items.
--
-- Rules a marketer asks about:
--   * Web: net quantity per sku; name, price, image and link as last added. An ordered or expired cart keeps its lines,
--     an emptied one has none.
--   * currency is null, and has_two_currencies true, when a sku was added in two of them (rule 11).
with web_lines as (
    select
        cart_key,
        currency,
        sku,
        name,
        image_url,
        product_url,
        line_order,
        basis,
        effect,
        quantity_after,
        price,
        max(basis) over (partition by cart_key) as last_basis,
        row_number() over (
            partition by cart_key, basis, sku
            order by line_order desc
        ) as recency,
        max(case when quantity_after = 0 then line_order else 0 end) over (
            partition by cart_key, basis, sku
        ) as last_empty_order
    from core.cart_events
    where sku is not null
),

held as (
    select
        cart_key,
        sku,
        quantity_after as quantity
    from web_lines
    where basis = last_basis and recency = 1 and quantity_after > 0
),

additions as (
    -- What was taken out again completely says nothing about what is in the cart now.
    select
        cart_key,
        currency,
        sku,
        name,
        image_url,
        product_url,
        line_order,
        price,
        row_number() over (
            partition by cart_key, sku
            order by line_order desc
        ) as recency
    from web_lines
    where basis = last_basis and effect > 0 and line_order > last_empty_order
),

added as (
    select
        cart_key,
        sku,
        max(name) filter (where recency = 1) as name,
        max(image_url) filter (where recency = 1) as image_url,
        max(product_url) filter (where recency = 1) as product_url,
        max(price) filter (where recency = 1) as price,
        min(currency) as first_currency,
        max(currency) as last_currency,
        min(line_order) as line_order
    from additions
    group by cart_key, sku
),

lines as (
    select
        held.cart_key,
        held.sku,
        coalesce(added.name, held.sku) as name,
        added.image_url,
        added.product_url,
        case when added.first_currency = added.last_currency then added.first_currency end as currency,
        added.line_order,
        cast(null as text) as line_id,
        held.quantity,
        added.price,
        coalesce(added.first_currency <> added.last_currency, false) as has_two_currencies
    from held
    inner join added
        on held.cart_key = added.cart_key and held.sku = added.sku
    union all
    select
        carts.cart_key,
        items.sku,
        coalesce(items.name, items.sku) as name,
        items.image_url,
        items.product_url,
        coalesce(items.currency, carts.currency) as currency,
        -- Line ids are numbers written as text: the shorter is the smaller.
        length(items.line_id) as line_order,
        items.line_id,
        items.quantity,
        items.price,
        false as has_two_currencies
    from core.shop_carts as carts
    inner join staging.cart_items as items
        on carts.source = items.source and carts.cart_id = items.cart_id
    where items.quantity > 0
)

select
    cart_key,
    row_number() over (
        partition by cart_key
        order by line_order asc, line_id asc, sku asc
    ) as line_number,
    sku,
    name,
    image_url,
    product_url,
    currency,
    quantity,
    price,
    has_two_currencies
from lines
