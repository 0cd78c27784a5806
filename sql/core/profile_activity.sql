-- What the segments need to know about a profile, in one row.
--
-- One row is a profile. Key: profile_id. Inputs: core.profiles, core.sessions, core.events, core.event_items,
-- core.orders, core.order_profiles, core.engagement, core.subscriptions.
--
-- Rules a marketer asks about:
--   * last_visit_at is the end of the latest visit that is no bot's; visits and page views are counted without bots.
--   * Only orders that count are here. last_order_at also knows the orders a shared browser's own profile answers;
--     orders_count and orders_amount belong to the person alone, so that no order is summed twice. Orders of several
--     currencies have no sum.
--   * An open or click of a bot is none.
--   * last_conversion_at: the latest of order, lead, sign-up, contact created in the CRM, subscription begun.
with profiles as (
    select
        profile_id,
        crm_created_at,
        first_seen_at,
        last_seen_at
    from core.profiles
),

visits as (
    select
        profile_id,
        count(*) as visits_count,
        cast(sum(page_views) as bigint) as page_views_count,
        max(ended_at) as last_visit_at
    from core.sessions
    where not is_bot
    group by profile_id
),

own_orders as (
    select
        profile_id,
        count(*) as orders_count,
        case when min(currency) = max(currency) or max(currency) is null then sum(total_amount) end as orders_amount
    from core.orders
    where counts and ordered_at < :as_of
    group by profile_id
),

answered_orders as (
    select
        order_profiles.profile_id,
        max(orders.ordered_at) as last_order_at
    from core.order_profiles as order_profiles
    inner join core.orders as orders
        on order_profiles.order_key = orders.order_key
    where orders.counts and orders.ordered_at < :as_of
    group by order_profiles.profile_id
),

touches as (
    select
        profile_id,
        max(occurred_at) filter (where type = 'open') as last_open_at,
        max(occurred_at) filter (where type = 'click') as last_click_at
    from core.engagement
    where type in ('open', 'click') and not coalesce(is_bot, false) and occurred_at < :as_of
    group by profile_id
),

product_views as (
    select
        event_key,
        profile_id,
        occurred_at
    from core.events
    where event_name = 'view_item' and occurred_at < :as_of
),

product_view_counts as (
    select
        profile_id,
        count(*) filter (where occurred_at >= :as_of - interval '30 days') as product_views_30d
    from product_views
    group by profile_id
),

viewed_products as (
    select
        product_views.profile_id,
        coalesce(items.name, items.sku) as name,
        max(product_views.occurred_at) as viewed_at
    from product_views
    inner join core.event_items as items
        on product_views.event_key = items.event_key
    group by product_views.profile_id, coalesce(items.name, items.sku)
),

ranked_products as (
    select
        profile_id,
        name,
        row_number() over (
            partition by profile_id
            order by viewed_at desc, name asc
        ) as recency
    from viewed_products
),

last_products as (
    select
        profile_id,
        string_agg(name, ', ' order by recency asc) as last_viewed_products
    from ranked_products
    where recency <= 3
    group by profile_id
),

conversions as (
    select
        profile_id,
        last_order_at as converted_at
    from answered_orders
    union all
    select
        profile_id,
        occurred_at as converted_at
    from core.events
    where event_name in ('generate_lead', 'sign_up')
    union all
    select
        profile_id,
        crm_created_at as converted_at
    from profiles
    union all
    select
        profile_id,
        started_at as converted_at
    from core.subscriptions
),

last_conversions as (
    select
        profile_id,
        max(converted_at) as last_conversion_at
    from conversions
    where converted_at < :as_of
    group by profile_id
)

select
    profiles.profile_id,
    last_products.last_viewed_products,
    coalesce(own_orders.orders_count, 0) as orders_count,
    case when own_orders.profile_id is null then 0 else own_orders.orders_amount end as orders_amount,
    coalesce(visits.visits_count, 0) as visits_count,
    coalesce(visits.page_views_count, 0) as page_views_count,
    coalesce(product_view_counts.product_views_30d, 0) as product_views_30d,
    profiles.first_seen_at,
    profiles.last_seen_at,
    visits.last_visit_at,
    answered_orders.last_order_at,
    touches.last_open_at,
    touches.last_click_at,
    last_conversions.last_conversion_at
from profiles
left join visits
    on profiles.profile_id = visits.profile_id
left join own_orders
    on profiles.profile_id = own_orders.profile_id
left join answered_orders
    on profiles.profile_id = answered_orders.profile_id
left join touches
    on profiles.profile_id = touches.profile_id
left join product_view_counts
    on profiles.profile_id = product_view_counts.profile_id
left join last_products
    on profiles.profile_id = last_products.profile_id
left join last_conversions
    on profiles.profile_id = last_conversions.profile_id
