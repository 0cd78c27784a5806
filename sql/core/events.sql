-- A row is a web event of a profile, in GA4's names.
-- Key: event_key. An event that belongs to nobody (quarantined browser without a login) has no row.
-- materialized: view
-- Inputs: staging.events, core.identifiers, core.erased_identifiers, core.visits.
-- Rules: the login's profile, otherwise the e-mail's, otherwise the browser's (1), also when the login came later than
-- the event (2); on a quarantined browser only events with a login belong to somebody (3). Erased people's events are
-- gone (21). Rows dated at or after as_of do not exist yet (11).
-- A visit (session_key) is as in core.visits. For analysts and reports: no model reads it, since it labels every event
-- that ever was.
with identifiers as (
    select
        identifier_kind,
        identifier_value,
        profile_id
    from core.identifiers
    where profile_id is not null
),

erased as (
    select
        identifier_kind,
        identifier_value,
        erased_until
    from core.erased_identifiers
),

matched as not materialized (
    select
        events.event_key,
        events.source,
        events.event_name,
        events.visitor_id,
        events.session_id,
        events.page_location,
        events.page_title,
        events.transaction_id,
        events.currency,
        events.browser,
        events.device_category,
        events.country,
        events.traffic_type,
        events.ads_storage,
        events.value,
        events.engagement_ms,
        events.is_engaged,
        by_user.profile_id as user_profile_id,
        by_email.profile_id as email_profile_id,
        case
            when coalesce(events.occurred_at >= erased_visitor.erased_until, true) then by_visitor.profile_id
        end as visitor_profile_id,
        events.occurred_at,
        events.loaded_at
    from staging.events as events
    left join identifiers as by_user
        on
            by_user.identifier_kind = 'user_id'
            and events.user_id = by_user.identifier_value
    left join identifiers as by_email
        on
            by_email.identifier_kind = 'email'
            and events.email = by_email.identifier_value
    left join identifiers as by_visitor
        on
            by_visitor.identifier_kind = 'visitor_id'
            and events.visitor_id = by_visitor.identifier_value
    left join erased as erased_user
        on
            erased_user.identifier_kind = 'user_id'
            and events.user_id = erased_user.identifier_value
    left join erased as erased_email
        on
            erased_email.identifier_kind = 'email'
            and events.email = erased_email.identifier_value
    left join erased as erased_visitor
        on
            erased_visitor.identifier_kind = 'visitor_id'
            and events.visitor_id = erased_visitor.identifier_value
    where
        events.occurred_at < :as_of
        and coalesce(events.occurred_at >= erased_user.erased_until, true)
        and coalesce(events.occurred_at >= erased_email.erased_until, true)
),

-- A visit of a source without session ids is known by its browser and its time.
walked_visits as (
    select
        session_key,
        visitor_id,
        min(started_at) as started_at,
        max(ended_at) as ended_at
    from core.visits
    where session_id is null
    group by session_key, visitor_id
)

select
    matched.event_key,
    coalesce(matched.user_profile_id, matched.email_profile_id, matched.visitor_profile_id) as profile_id,
    matched.visitor_id,
    case
        when matched.session_id is not null then matched.visitor_id || '.' || matched.session_id
        else walked_visits.session_key
    end as session_key,
    matched.event_name,
    matched.page_location,
    matched.page_title,
    matched.transaction_id,
    matched.currency,
    matched.browser,
    matched.device_category,
    matched.country,
    matched.traffic_type,
    matched.ads_storage,
    matched.source,
    case
        when matched.user_profile_id is not null then 'user_id'
        when matched.email_profile_id is not null then 'email'
        else 'visitor_id'
    end as matched_by,
    matched.value,
    matched.engagement_ms,
    matched.is_engaged,
    matched.occurred_at,
    matched.loaded_at
from matched
left join walked_visits
    on
        case when matched.session_id is null then matched.visitor_id end = walked_visits.visitor_id
        and matched.occurred_at between walked_visits.started_at and walked_visits.ended_at
where coalesce(matched.user_profile_id, matched.email_profile_id, matched.visitor_profile_id) is not null
