-- materialized: incremental by profile_id
-- Carts of profiles over time, from the web and from CRM and shop.
--
-- One row is a cart. Key: cart_key. Inputs: core.cart_events, core.shop_carts, core.cart_lines, core.cart_closings.
--
-- state at as_of, the first that fits (rules 7 to 11):
--   ordered   the source says so, or an order of the profile that counts was placed at or after the last activity
--             (up to the clock tolerance before it, when another source reports it); ordered_at is that order's time
--   emptied   the source says so, or nothing is left in it
--   expired   untouched for longer than the cart's lifetime, or followed by a later cart of the same source
--   open      none of these
-- A cart in two currencies has neither value nor currency. A shop's cart that comes without lines keeps its own total.
-- A web cart that never held anything is none.
-- Time alone changes one thing: a cart that was open at the last build expires when last_activity_at + cart_lifetime
-- falls before as_of. The profiles of such rows are touched in every build.
with web_facts as (
    select
        cart_key,
        profile_id,
        source,
        max(case when page_location is not null then line_order end) as last_page_order,
        min(occurred_at) as started_at,
        max(occurred_at) as last_activity_at
    from core.cart_events
    group by cart_key, profile_id, source
    having max(effect) > 0
),

web_carts as (
    select
        web_facts.cart_key,
        web_facts.profile_id,
        web_facts.source,
        cast(null as text) as cart_id,
        cast(null as text) as status,
        cast(null as text) as currency,
        pages.page_location as cart_url,
        cast(null as double) as total_amount,
        web_facts.started_at,
        web_facts.last_activity_at
    from web_facts
    left join core.cart_events as pages
        on web_facts.cart_key = pages.cart_key and web_facts.last_page_order = pages.line_order
),

carts as (
    select * from web_carts
    union all
    select
        cart_key,
        profile_id,
        source,
        cart_id,
        status,
        currency,
        cart_url,
        total_amount,
        started_at,
        last_activity_at
    from core.shop_carts
),

contents as (
    select
        cart_key,
        count(*) as line_count,
        min(currency) as first_currency,
        coalesce(min(currency) <> max(currency), false) or bool_or(has_two_currencies) as has_two_currencies,
        cast(sum(quantity) as bigint) as item_count,
        sum(quantity * price) as lines_value,
        string_agg(cast(quantity as text) || ' x ' || name, ', ' order by line_number asc)
        filter (where line_number <= 10) as items
    from core.cart_lines
    where touched_profile(profile_id)
    group by cart_key
),

timeline as (
    select
        profile_id,
        source,
        cart_key,
        last_activity_at as happened_at,
        0 as is_order,
        cast(null as timestamp) as ordered_at
    from carts
    union all
    select
        profile_id,
        source,
        cast(null as text) as cart_key,
        closes_until as happened_at,
        1 as is_order,
        ordered_at
    from core.cart_closings
),

closed as (
    -- From the latest back: the earliest order that is not before the cart's last activity.
    select
        cart_key,
        min(ordered_at) over (
            partition by profile_id, source
            order by happened_at desc, is_order desc, cart_key desc
            rows between unbounded preceding and current row
        ) as ordered_at
    from timeline
),

described as (
    select
        carts.cart_key,
        carts.profile_id,
        carts.source,
        carts.cart_id,
        carts.cart_url,
        carts.status,
        case
            when contents.has_two_currencies then null
            else coalesce(contents.first_currency, carts.currency)
        end as currency,
        contents.items,
        case
            when contents.has_two_currencies then null
            else coalesce(contents.lines_value, carts.total_amount, 0)
        end as cart_value,
        coalesce(contents.item_count, 0) as item_count,
        contents.line_count is null and coalesce(carts.total_amount, 0) = 0 as is_empty,
        carts.started_at,
        carts.last_activity_at,
        closed.ordered_at,
        row_number() over (
            partition by carts.profile_id, carts.source
            order by carts.last_activity_at desc, carts.started_at desc, carts.cart_key desc
        ) as recency
    from carts
    left join contents
        on carts.cart_key = contents.cart_key
    left join closed
        on carts.cart_key = closed.cart_key
)

select
    cart_key,
    profile_id,
    source,
    cart_id,
    cart_url,
    currency,
    items,
    case
        when status = 'ordered' or ordered_at is not null then 'ordered'
        when status = 'emptied' or is_empty then 'emptied'
        when recency > 1 or last_activity_at < :as_of - :cart_lifetime then 'expired'
        else 'open'
    end as state,
    cart_value,
    item_count,
    started_at,
    last_activity_at,
    case when status = 'ordered' then coalesce(ordered_at, last_activity_at) else ordered_at end as ordered_at
from described
