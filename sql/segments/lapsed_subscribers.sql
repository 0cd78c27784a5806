-- Whose paid plan ended, or who has gone silent on the newsletter.
--
-- One row is a profile with a reason. Key: profile_id. Inputs: core.subscriptions, core.profile_activity,
-- core.suppressions, core.consents, core.profiles.
--   expired   the latest end of her paid plans is in [as_of - ended_within, as_of - ended_at_least) and no other plan
--             is running or began at or after that end
--   inactive  subscribed to e-mail for at least inactive_for, no plan running, and no open, click, visit or order
--             within that time (exactly that long ago is still a sign of life)
--
-- Rules a marketer asks about:
--   * Ended means the paid period is over: cancelled but paid until later, or a payment still retried, has not ended.
--   * Whoever is both is `expired`.
--   * Unsubscribed (opted out at a tool, denied in the CRM, or complained): never `inactive`; `expired` for ads only,
--     see allowed_channels. A bounce is no unsubscribe.
--   * entered_at is the moment the rule became true. Stages count from the end, or from the last sign of life.
with paid_plans as (
    select
        subscription_key,
        profile_id,
        plan,
        coalesce(is_running, false) as is_running,
        started_at,
        ended_at
    from core.subscriptions
    where kind = 'paid'
),

newsletter_subscriptions as (
    -- Who subscribed a second list last week has still been a subscriber since the first.
    select
        profile_id,
        min(started_at) as subscribed_at
    from core.subscriptions
    where kind = 'email' and coalesce(is_running, false)
    group by profile_id
),

last_signs as (
    select
        profile_id,
        greatest(
            coalesce(last_open_at, timestamp '1970-01-01 00:00:00'),
            coalesce(last_click_at, timestamp '1970-01-01 00:00:00'),
            coalesce(last_visit_at, timestamp '1970-01-01 00:00:00'),
            coalesce(last_order_at, timestamp '1970-01-01 00:00:00')
        ) as last_sign_at
    from core.profile_activity
),

unsubscribed as (
    -- One row per profile, however many tools and contacts said no.
    select profile_id
    from core.suppressions
    where channel in ('email', 'all') and reason in ('opted_out', 'complained')
    union distinct
    select profile_id
    from core.consents
    where channel = 'email' and status = 'denied'
),

people as (
    select profile_id
    from core.profiles
    where not coalesce(is_bot, false) and not coalesce(is_staff, false)
),

ended_plans as (
    select
        subscription_key,
        profile_id,
        plan,
        ended_at,
        row_number() over (
            partition by profile_id
            order by ended_at desc, started_at desc nulls last, subscription_key asc
        ) as recency
    from paid_plans
    where not is_running and ended_at < :as_of
),

last_ends as (
    select
        subscription_key,
        profile_id,
        plan,
        ended_at
    from ended_plans
    where recency = 1
),

running_plans as (
    select distinct profile_id
    from paid_plans
    where is_running
),

renewed as (
    select distinct last_ends.profile_id
    from last_ends
    inner join paid_plans
        on
            last_ends.profile_id = paid_plans.profile_id
            and last_ends.subscription_key is distinct from paid_plans.subscription_key
    where paid_plans.is_running or coalesce(paid_plans.started_at >= last_ends.ended_at, false)
),

expired as (
    select
        last_ends.profile_id,
        last_ends.plan,
        last_ends.ended_at
    from last_ends
    left join renewed
        on last_ends.profile_id = renewed.profile_id
    where
        renewed.profile_id is null
        and last_ends.ended_at >= :as_of - :ended_within
        and last_ends.ended_at < :as_of - :ended_at_least
),

silent as (
    select
        newsletter_subscriptions.profile_id,
        case
            when last_signs.last_sign_at > newsletter_subscriptions.subscribed_at then last_signs.last_sign_at
            else newsletter_subscriptions.subscribed_at
        end as silent_since
    from newsletter_subscriptions
    left join last_signs
        on newsletter_subscriptions.profile_id = last_signs.profile_id
    where
        newsletter_subscriptions.subscribed_at <= :as_of - :inactive_for
        -- Nothing ever is silence too.
        and coalesce(last_signs.last_sign_at < :as_of - :inactive_for, true)
),

inactive as (
    select
        silent.profile_id,
        last_ends.plan,
        silent.silent_since,
        last_ends.ended_at
    from silent
    left join last_ends
        on silent.profile_id = last_ends.profile_id
    left join running_plans
        on silent.profile_id = running_plans.profile_id
    left join unsubscribed
        on silent.profile_id = unsubscribed.profile_id
    left join expired
        on silent.profile_id = expired.profile_id
    where
        running_plans.profile_id is null
        and unsubscribed.profile_id is null
        and expired.profile_id is null
),

lapsed as (
    select
        profile_id,
        'expired' as reason,
        plan,
        ended_at as lapsed_since,
        ended_at + :ended_at_least as entered_at,
        ended_at
    from expired
    union all
    select
        profile_id,
        'inactive' as reason,
        plan,
        silent_since as lapsed_since,
        -- While a plan was running nobody was inactive.
        case when ended_at > silent_since + :inactive_for then ended_at else silent_since + :inactive_for end
            as entered_at,
        ended_at
    from inactive
)

select
    lapsed.profile_id,
    stage_of(lapsed.lapsed_since) as stage,
    lapsed.reason,
    case when unsubscribed.profile_id is null then 'email, ads' else 'ads' end as allowed_channels,
    lapsed.plan,
    lapsed.entered_at,
    lapsed.ended_at,
    activity.last_seen_at
from lapsed
inner join people
    on lapsed.profile_id = people.profile_id
left join unsubscribed
    on lapsed.profile_id = unsubscribed.profile_id
left join core.profile_activity as activity
    on lapsed.profile_id = activity.profile_id
