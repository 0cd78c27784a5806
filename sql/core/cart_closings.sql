-- Until when an order empties the carts of a profile, by the clock of each source that has carts.
--
-- One row is a profile, a source of carts and an order that counts. Key: profile_id, source, order_key.
-- Inputs: core.orders, core.order_profiles, core.order_records, core.events, staging.carts.
--
-- A cart whose last activity is not later than closes_until is closed by the order (rules 8 and 10):
--   * the cart's source reports the order itself: its own time for the order, its clock is right with itself;
--   * it does not: the earliest time of the others plus the clock tolerance, since their clocks differ.
with cart_sources as (
    -- Union without all: each source once.
    select source from core.events
    where event_name in ('add_to_cart', 'remove_from_cart', 'begin_checkout')
    union distinct
    select source from staging.carts
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
    order_profiles.profile_id,
    cart_sources.source,
    orders.order_key,
    coalesce(own_times.ordered_at, orders.ordered_at) as ordered_at,
    coalesce(own_times.ordered_at, orders.ordered_at + :clock_tolerance) as closes_until
from core.orders as orders
inner join core.order_profiles as order_profiles
    on orders.order_key = order_profiles.order_key
cross join cart_sources
left join own_times
    on orders.order_key = own_times.order_key and cart_sources.source = own_times.source
where orders.counts and orders.ordered_at < :as_of
