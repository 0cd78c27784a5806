-- materialized: incremental by profile_id
-- What is in the carts.
--
-- One row is a product in a cart, in the order of adding. Key: cart_key, line_number. Inputs: core.cart_events,
-- core.action_profiles, core.shop_carts, staging.cart_items.
--
-- Rules a marketer asks about:
--   * Web: net quantity per sku; name, price, image and link as last added. An ordered or expired cart keeps its lines,
--     an emptied one has none.
--   * currency is null, and has_two_currencies true, when a sku was added in two of them (rule 11).
with changes as (
    select
        cart_key,
        profile_id,
        event_key,
        currency,
        sku,
        item_index,
        line_order,
        basis,
        effect,
        took_the_last
    from core.cart_events
    where effect <> 0
),

last_checkouts as (
    select
        cart_key,
        max(basis) as basis
    from changes
    where basis > 0
    group by cart_key
),

-- What was taken out again completely says nothing about what is in the cart now.
last_taken as (
    select
        cart_key,
        sku,
        max(line_order) as line_order
    from changes
    where took_the_last
    group by cart_key, sku
),

kept as (
    select
        changes.cart_key,
        changes.profile_id,
        changes.event_key,
        changes.currency,
        changes.sku,
        changes.item_index,
        changes.line_order,
        changes.effect
    from changes
    left join last_checkouts
        on changes.cart_key = last_checkouts.cart_key
    left join last_taken
        on changes.cart_key = last_taken.cart_key and changes.sku = last_taken.sku
    where
        changes.basis = coalesce(last_checkouts.basis, 0)
        and changes.line_order > coalesce(last_taken.line_order, 0)
),

held as (
    select
        cart_key,
        sku,
        cast(sum(effect) as bigint) as quantity,
        min(case when effect > 0 then currency end) as first_currency,
        max(case when effect > 0 then currency end) as last_currency,
        min(line_order) as line_order,
        max(case when effect > 0 then line_order end) as last_added_order
    from kept
    group by cart_key, sku
    having sum(effect) > 0
),

lines as (
    select
        held.cart_key,
        kept.profile_id,
        held.sku,
        coalesce(actions.name, held.sku) as name,
        actions.image_url,
        actions.product_url,
        case when held.first_currency = held.last_currency then held.first_currency end as currency,
        held.line_order,
        cast(null as text) as line_id,
        held.quantity,
        actions.price,
        coalesce(held.first_currency <> held.last_currency, false) as has_two_currencies
    from held
    inner join kept
        on held.cart_key = kept.cart_key and held.last_added_order = kept.line_order
    inner join core.action_profiles as actions
        on kept.event_key = actions.event_key and kept.item_index = actions.item_index
    union all
    select
        carts.cart_key,
        carts.profile_id,
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
    profile_id,
    row_number() over (
        partition by cart_key
        order by line_order asc, line_id asc, sku asc, name asc, quantity asc, price asc
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
