-- materialized: work
-- Until when an order empties the carts of a profile, by the clock of each source in which the profile has carts.
--
-- One row is a profile, a source of its carts and an order that counts. Key: profile_id, source, order_key.
-- Inputs: core.orders, core.order_profiles, core.order_records, core.action_profiles, core.shop_carts.
--
-- A cart whose last activity is not later than closes_until is closed by the order (rules 8 and 10):
--   * the cart's source reports the order itself: its own time for the order, its clock is right with itself;
--   * it does not: the earliest time of the others plus the clock tolerance, since their clocks differ.
with answered_orders as (
    select
        order_key,
        profile_id
    from core.order_profiles
),

orders as (
    select
        order_key,
        ordered_at
    from core.orders
    where counts and ordered_at < :as_of
),

cart_sources as (
    -- Union without all: each source of a profile once.
    select
        profile_id,
        source
    from core.action_profiles
    where event_name in ('add_to_cart', 'remove_from_cart', 'begin_checkout')
    union distinct
    select
        profile_id,
        source
    from core.shop_carts
),

own_times as (
    select
        order_key,
        source,
        min(ordered_at) as ordered_at
    from core.order_records
    group by order_key, source
)

select
    answered_orders.profile_id,
    cart_sources.source,
    orders.order_key,
    coalesce(own_times.ordered_at, orders.ordered_at) as ordered_at,
    coalesce(own_times.ordered_at, orders.ordered_at + :clock_tolerance) as closes_until
from orders
inner join answered_orders
    on orders.order_key = answered_orders.order_key
inner join cart_sources
    on answered_orders.profile_id = cart_sources.profile_id
left join own_times
    on orders.order_key = own_times.order_key and cart_sources.source = own_times.source
