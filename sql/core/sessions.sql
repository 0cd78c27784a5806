-- Visits of profiles.
--
-- One row is what one profile did in one visit. Key: session_key, profile_id. Inputs: core.visits, which names the visit,
-- core.identifiers, core.erased_identifiers, core.timed_sources.
-- materialized: incremental by profile_id
--
-- Rules a marketer asks about:
--   * The login's profile, otherwise the e-mail's, otherwise the browser's (1), also when the login came later than the
--     visit (2). On a quarantined browser only what was done with a login belongs to somebody (3). An erased browser
--     speaks for nobody (21).
--   * On a shared browser what was done with a login is hers and the rest the browser's own: two rows, one session_key.
--   * Engaged (rule 16): the source's own flag, or 10 s of engagement, or 2 page views, or a product view. Where a
--     source never sends engagement time, it is the time from the first to the last event.
--   * is_bot and is_internal (rule 18): see core.visits. core.profiles carries them over to the whole profile.
--   * ads_granted_at and ads_denied_at: the browser's latest yes and no to ads in the visit (19).
with visits as not materialized (
    select *
    from core.visits
    where touched_visitor(visitor_id)
),

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

labelled as not materialized (
    select
        visits.session_key,
        coalesce(
            users.profile_id,
            emails.profile_id,
            case when coalesce(visits.started_at >= erased_visitors.erased_until, true) then visitors.profile_id end
        ) as profile_id,
        visits.visitor_id,
        visits.source,
        visits.page_views,
        visits.product_views,
        visits.engagement_ms,
        timed_sources.source is not null as has_engagement_time,
        visits.has_engaged_flag,
        visits.has_bot_signs,
        visits.is_internal,
        visits.started_at,
        visits.ended_at,
        visits.last_lead_at,
        visits.last_sign_up_at,
        visits.last_cart_at,
        visits.ads_granted_at,
        visits.ads_denied_at
    from visits
    left join users
        on visits.user_id = users.identifier_value
    left join emails
        on visits.email = emails.identifier_value
    left join visitors
        on visits.visitor_id = visitors.identifier_value
    left join erased_visitors
        on visits.visitor_id = erased_visitors.identifier_value
    left join core.timed_sources as timed_sources
        on visits.source = timed_sources.source
),

timed as (
    select
        session_key,
        profile_id,
        min(visitor_id) as visitor_id,
        min(source) as source,
        cast(sum(page_views) as bigint) as page_views,
        cast(sum(product_views) as bigint) as product_views,
        cast(
            case
                when bool_or(has_engagement_time) then coalesce(sum(engagement_ms) / 1000.0, 0)
                else epoch(max(ended_at)) - epoch(min(started_at))
            end as double
        ) as engagement_seconds,
        bool_or(has_engaged_flag) as has_engaged_flag,
        bool_or(has_bot_signs) as is_bot,
        bool_or(is_internal) as is_internal,
        min(started_at) as started_at,
        max(ended_at) as ended_at,
        max(last_lead_at) as last_lead_at,
        max(last_sign_up_at) as last_sign_up_at,
        max(last_cart_at) as last_cart_at,
        max(ads_granted_at) as ads_granted_at,
        max(ads_denied_at) as ads_denied_at
    from labelled
    where profile_id is not null
    group by session_key, profile_id
)

select
    session_key,
    profile_id,
    visitor_id,
    source,
    page_views,
    product_views,
    engagement_seconds,
    has_engaged_flag or engagement_seconds >= 10 or page_views >= 2 or product_views >= 1 as is_engaged,
    is_bot,
    is_internal,
    started_at,
    ended_at,
    last_lead_at,
    last_sign_up_at,
    last_cart_at,
    ads_granted_at,
    ads_denied_at
from timed
