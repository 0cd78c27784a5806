-- Who visited with interest and went away without doing what the shop hopes for.
--
-- One row is a profile with at least one engaged visit that ended in [as_of - window, as_of - quiet_for] and no
-- conversion since the first of those visits began. Key: profile_id. Inputs: core.sessions, core.actions,
-- core.identifiers, core.erased_identifiers, core.order_profiles, core.orders, core.subscriptions,
-- core.profile_activity, core.profiles.
--
-- Rules a marketer asks about:
--   * A visit counts by its end; ended exactly quiet_for ago is in. A visit going on right now keeps nobody out.
--   * `conversions` names what counts: purchase (an order that counts, of any source), contact_created (in the CRM),
--     subscription_begun (paid plan or newsletter), and the name of any event that is more than looking
--     (core.actions), such as generate_lead, sign_up or book_demo. A page view never converts.
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

-- Few, and looked for the other way round: everybody who is a person would be most of core.profiles.
not_people as (
    select profile_id
    from core.profiles
    where coalesce(is_bot, false) or coalesce(is_staff, false)
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

-- Nothing before it converts anybody; of a long history most is passed over unread.
earliest as (
    select min(first_started_at) as started_at
    from visitors
),

-- What was done in any visit since, one that is too short or still going on too.
later_visits as (
    select
        sessions.profile_id,
        sessions.last_lead_at,
        sessions.last_sign_up_at,
        sessions.last_cart_at
    from core.sessions as sessions
    cross join earliest
    where
        sessions.ended_at >= earliest.started_at
        and coalesce(sessions.last_lead_at, sessions.last_sign_up_at, sessions.last_cart_at) is not null
),

signs as (
    select
        visitors.profile_id,
        max(later_visits.last_lead_at) as last_lead_at,
        max(later_visits.last_sign_up_at) as last_sign_up_at,
        max(later_visits.last_cart_at) as last_cart_at
    from visitors
    inner join later_visits
        on visitors.profile_id = later_visits.profile_id
    group by visitors.profile_id
),

-- An event that only this shop counts: whose it is, as in core.sessions.
other_actions as (
    select
        coalesce(
            users.profile_id,
            emails.profile_id,
            case
                when coalesce(actions.occurred_at >= erased_visitors.erased_until, true) then browsers.profile_id
            end
        ) as profile_id,
        actions.occurred_at
    from core.actions as actions
    cross join earliest
    left join core.identifiers as users
        on
            users.identifier_kind = 'user_id'
            and actions.user_id = users.identifier_value
    left join core.identifiers as emails
        on
            emails.identifier_kind = 'email'
            and actions.email = emails.identifier_value
    left join core.identifiers as browsers
        on
            browsers.identifier_kind = 'visitor_id'
            and actions.visitor_id = browsers.identifier_value
    left join core.erased_identifiers as erased_users
        on
            erased_users.identifier_kind = 'user_id'
            and actions.user_id = erased_users.identifier_value
    left join core.erased_identifiers as erased_emails
        on
            erased_emails.identifier_kind = 'email'
            and actions.email = erased_emails.identifier_value
    left join core.erased_identifiers as erased_visitors
        on
            erased_visitors.identifier_kind = 'visitor_id'
            and actions.visitor_id = erased_visitors.identifier_value
    where
        actions.event_name in (:conversions)
        and actions.event_name not in ('purchase', 'generate_lead', 'sign_up')
        and actions.occurred_at >= earliest.started_at
        and actions.occurred_at < :as_of
        and coalesce(actions.occurred_at >= erased_users.erased_until, true)
        and coalesce(actions.occurred_at >= erased_emails.erased_until, true)
),

conversions as (
    select
        profile_id,
        last_lead_at as converted_at
    from signs
    where 'generate_lead' in (:conversions)
    union all
    select
        profile_id,
        last_sign_up_at as converted_at
    from signs
    where 'sign_up' in (:conversions)
    union all
    select
        profile_id,
        occurred_at as converted_at
    from other_actions
    union all
    -- A purchase is the order, not the event: a cancelled one is no conversion, one in the shop by phone is.
    select
        order_profiles.profile_id,
        orders.ordered_at as converted_at
    from core.order_profiles as order_profiles
    inner join core.orders as orders
        on order_profiles.order_key = orders.order_key
    cross join earliest
    where coalesce(orders.counts, false) and orders.ordered_at >= earliest.started_at and 'purchase' in (:conversions)
    union all
    select
        profiles.profile_id,
        profiles.crm_created_at as converted_at
    from core.profiles as profiles
    cross join earliest
    where profiles.crm_created_at >= earliest.started_at and 'contact_created' in (:conversions)
    union all
    select
        subscriptions.profile_id,
        subscriptions.started_at as converted_at
    from core.subscriptions as subscriptions
    cross join earliest
    where subscriptions.started_at >= earliest.started_at and 'subscription_begun' in (:conversions)
),

converted as (
    select distinct visitors.profile_id
    from visitors
    inner join conversions
        on visitors.profile_id = conversions.profile_id
    where conversions.converted_at >= visitors.first_started_at
)

select
    visitors.profile_id,
    stage_of(visitors.first_ended_at) as stage,
    case
        when signs.last_cart_at >= visitors.first_started_at then 'high'
        when visitors.product_views > 0 then 'medium'
        else 'low'
    end as intent,
    activity.last_viewed_products,
    visitors.visits_count,
    visitors.first_ended_at + :quiet_for as entered_at,
    visitors.last_ended_at as last_visit_at
from visitors
left join not_people
    on visitors.profile_id = not_people.profile_id
left join converted
    on visitors.profile_id = converted.profile_id
left join signs
    on visitors.profile_id = signs.profile_id
left join core.profile_activity as activity
    on visitors.profile_id = activity.profile_id
where not_people.profile_id is null and converted.profile_id is null
