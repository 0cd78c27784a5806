-- Who left something in the cart and has not come back to it.
--
-- One row is a profile whose latest cart, over all sources, is open, holds something, and was last touched in
-- [as_of - window, as_of - idle_for). Key: profile_id. Inputs: core.carts, core.profiles.
--
-- Rules a marketer asks about:
--   * Only the latest cart decides. Emptied, ordered or touched a moment ago: an older open cart brings nobody in.
--   * Orders of every source have already closed the carts they answer (core.carts.state), cancelled ones have not.
--   * A cart in two currencies has no known value; it is in unless `min_cart_value` asks for one.
--   * entered_at is the moment the rule became true: last activity + idle_for.
with carts as (
    select
        cart_key,
        profile_id,
        cart_url,
        currency,
        items,
        state,
        cart_value,
        item_count,
        last_activity_at,
        -- At the same instant a closed cart stands over an open one: better one reminder too few.
        row_number() over (
            partition by profile_id
            order by
                last_activity_at desc,
                case when state = 'open' then 1 else 0 end asc,
                cart_key asc
        ) as recency
    from core.carts
    -- A later cart than one in the window is in it too, so older ones decide nothing.
    where last_activity_at >= :as_of - :window
),

people as (
    select profile_id
    from core.profiles
    where not coalesce(is_bot, false) and not coalesce(is_staff, false)
),

abandoned_carts as (
    select
        profile_id,
        cart_key,
        cart_url,
        currency,
        items,
        cart_value,
        item_count,
        last_activity_at
    from carts
    where
        recency = 1
        and state = 'open'
        -- A shop's cart may come with its value and without its lines.
        and (coalesce(item_count, 0) > 0 or coalesce(cart_value, 0) > 0)
        and coalesce(cart_value, 0) >= :min_cart_value
        and last_activity_at < :as_of - :idle_for
)

select
    abandoned_carts.profile_id,
    abandoned_carts.cart_key,
    stage_of(abandoned_carts.last_activity_at) as stage,
    abandoned_carts.cart_url,
    abandoned_carts.currency,
    abandoned_carts.items as cart_items,
    abandoned_carts.cart_value,
    abandoned_carts.item_count,
    abandoned_carts.last_activity_at + :idle_for as entered_at,
    abandoned_carts.last_activity_at as abandoned_at
from abandoned_carts
inner join people
    on abandoned_carts.profile_id = people.profile_id
