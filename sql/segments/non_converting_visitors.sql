-- Who visited with interest and went away without doing what the shop hopes for.
--
-- One row is a profile with at least one engaged visit that ended in [as_of - window, as_of - quiet_for] and no
-- conversion since the first of those visits began. Key: profile_id. Inputs: core.sessions, core.events,
-- core.order_profiles, core.orders, core.subscriptions, core.profile_activity, core.profiles.
--
-- Rules a marketer asks about:
--   * A visit counts by its end; ended exactly quiet_for ago is in. A visit going on right now keeps nobody out.
--   * `conversions` names what counts: purchase (an order that counts, of any source), contact_created (in the CRM),
--     subscription_begun (paid plan or newsletter), and any event name, such as generate_lead or sign_up.
--   * intent since the first of those visits: high (cart or checkout), medium (product view), low (neither).
--   * entered_at follows the first of those visits: its end + quiet_for.
with engaged_visits as (
    select
        profile_id,
        product_views,
        started_at,
        ended_at
    from core.sessions
    where
        coalesce(is_engaged, false)
        and ended_at >= :as_of - :window
        and ended_at <= :as_of - :quiet_for
),

people as (
    select
        profile_id,
        crm_created_at
    from core.profiles
    where not coalesce(is_bot, false) and not coalesce(is_staff, false)
),

visitors as (
    select
        profile_id,
        count(*) as visits_count,
        sum(coalesce(product_views, 0)) as product_views,
        min(started_at) as first_started_at,
        min(ended_at) as first_ended_at,
        max(ended_at) as last_ended_at
    from engaged_visits
    group by profile_id
),

conversions as (
    -- A purchase is the order, not the event: a cancelled one is no conversion, one in the shop by phone is.
    select
        profile_id,
        occurred_at as converted_at
    from core.events
    where event_name in (:conversions) and event_name <> 'purchase'
    union all
    select
        order_profiles.profile_id,
        orders.ordered_at as converted_at
    from core.order_profiles as order_profiles
    inner join core.orders as orders
        on order_profiles.order_key = orders.order_key
    where coalesce(orders.counts, false) and 'purchase' in (:conversions)
    union all
    select
        profile_id,
        crm_created_at as converted_at
    from people
    where 'contact_created' in (:conversions)
    union all
    select
        profile_id,
        started_at as converted_at
    from core.subscriptions
    where 'subscription_begun' in (:conversions)
),

converted as (
    select distinct visitors.profile_id
    from visitors
    inner join conversions
        on visitors.profile_id = conversions.profile_id
    where conversions.converted_at >= visitors.first_started_at
),

cart_users as (
    select distinct visitors.profile_id
    from visitors
    inner join core.events as events
        on visitors.profile_id = events.profile_id
    where
        events.event_name in ('add_to_cart', 'begin_checkout', 'add_shipping_info', 'add_payment_info')
        and events.occurred_at >= visitors.first_started_at
)

select
    visitors.profile_id,
    stage_of(visitors.first_ended_at) as stage,
    case
        when cart_users.profile_id is not null then 'high'
        when visitors.product_views > 0 then 'medium'
        else 'low'
    end as intent,
    activity.last_viewed_products,
    visitors.visits_count,
    visitors.first_ended_at + :quiet_for as entered_at,
    visitors.last_ended_at as last_visit_at
from visitors
inner join people
    on visitors.profile_id = people.profile_id
left join converted
    on visitors.profile_id = converted.profile_id
left join cart_users
    on visitors.profile_id = cart_users.profile_id
left join core.profile_activity as activity
    on visitors.profile_id = activity.profile_id
where converted.profile_id is null
