-- What the segments need to know about a profile, in one row.
--
-- One row is a profile. Key: profile_id. Inputs: core.profiles, core.sessions, core.visit_products, core.identifiers,
-- core.erased_identifiers, core.orders, core.order_profiles, core.engagement, core.subscriptions.
-- materialized: incremental by profile_id
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
    where touched_profile(profile_id)
),

visits as (
    select
        profile_id,
        count(*) filter (where not is_bot) as visits_count,
        cast(sum(page_views) filter (where not is_bot) as bigint) as page_views_count,
        max(ended_at) filter (where not is_bot) as last_visit_at,
        max(last_lead_at) as last_lead_at,
        max(last_sign_up_at) as last_sign_up_at
    from core.sessions
    where touched_profile(profile_id)
    group by profile_id
),

own_orders as (
    select
        profile_id,
        count(*) as orders_count,
        case when min(currency) = max(currency) or max(currency) is null then sum(total_amount) end as orders_amount
    from core.orders
    where counts and ordered_at < :as_of and touched_profile(profile_id)
    group by profile_id
),

answered_orders as (
    select
        order_profiles.profile_id,
        max(orders.ordered_at) as last_order_at
    from core.order_profiles as order_profiles
    inner join core.orders as orders
        on order_profiles.order_key = orders.order_key
    where orders.counts and orders.ordered_at < :as_of and touched_profile(order_profiles.profile_id)
    group by order_profiles.profile_id
),

touches as (
    select
        profile_id,
        max(occurred_at) filter (where type = 'open') as last_open_at,
        max(occurred_at) filter (where type = 'click') as last_click_at
    from core.engagement
    where
        type in ('open', 'click')
        and not coalesce(is_bot, false)
        and occurred_at < :as_of
        and touched_profile(profile_id)
    group by profile_id
),

-- As in core.sessions: the login's profile, otherwise the e-mail's, otherwise the browser's.
users as not materialized (
    select
        identifier_value,
        profile_id
    from core.identifiers
    where
        identifier_kind = 'user_id'
        and touched_profile(profile_id)
),

emails as not materialized (
    select
        identifier_value,
        profile_id
    from core.identifiers
    where
        identifier_kind = 'email'
        and touched_profile(profile_id)
),

visitors as not materialized (
    select
        identifier_value,
        profile_id
    from core.identifiers
    where
        identifier_kind = 'visitor_id'
        and touched_profile(profile_id)
),

erased_visitors as (
    select
        identifier_value,
        erased_until
    from core.erased_identifiers
    where identifier_kind = 'visitor_id'
),

product_views as not materialized (
    select
        coalesce(
            users.profile_id,
            emails.profile_id,
            case
                when coalesce(products.viewed_at >= erased_visitors.erased_until, true) then visitors.profile_id
            end
        ) as profile_id,
        products.name,
        products.viewed_at
    from core.visit_products as products
    left join users
        on products.user_id = users.identifier_value
    left join emails
        on products.email = emails.identifier_value
    left join visitors
        on products.visitor_id = visitors.identifier_value
    left join erased_visitors
        on products.visitor_id = erased_visitors.identifier_value
    where touched_visitor(products.visitor_id)
),

viewed_products as (
    select
        profile_id,
        name,
        max(viewed_at) as viewed_at
    from product_views
    where profile_id is not null
    group by profile_id, name
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

subscriptions as (
    select
        profile_id,
        max(started_at) as last_started_at
    from core.subscriptions
    where started_at < :as_of and touched_profile(profile_id)
    group by profile_id
)

select
    profiles.profile_id,
    last_products.last_viewed_products,
    coalesce(own_orders.orders_count, 0) as orders_count,
    case when own_orders.profile_id is null then 0 else own_orders.orders_amount end as orders_amount,
    coalesce(visits.visits_count, 0) as visits_count,
    coalesce(visits.page_views_count, 0) as page_views_count,
    profiles.first_seen_at,
    profiles.last_seen_at,
    visits.last_visit_at,
    answered_orders.last_order_at,
    touches.last_open_at,
    touches.last_click_at,
    nullif(
        greatest(
            coalesce(answered_orders.last_order_at, timestamp '1970-01-01 00:00:00'),
            coalesce(visits.last_lead_at, timestamp '1970-01-01 00:00:00'),
            coalesce(visits.last_sign_up_at, timestamp '1970-01-01 00:00:00'),
            coalesce(subscriptions.last_started_at, timestamp '1970-01-01 00:00:00'),
            case
                when profiles.crm_created_at < :as_of then profiles.crm_created_at
                else timestamp '1970-01-01 00:00:00'
            end
        ),
        timestamp '1970-01-01 00:00:00'
    ) as last_conversion_at
from profiles
left join visits
    on profiles.profile_id = visits.profile_id
left join own_orders
    on profiles.profile_id = own_orders.profile_id
left join answered_orders
    on profiles.profile_id = answered_orders.profile_id
left join touches
    on profiles.profile_id = touches.profile_id
left join last_products
    on profiles.profile_id = last_products.profile_id
left join subscriptions
    on profiles.profile_id = subscriptions.profile_id
