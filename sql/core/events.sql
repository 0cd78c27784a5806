-- A row is a web event of a profile, in GA4's names.
-- Key: event_key. An event that belongs to nobody (quarantined browser without a login) has no row.
-- Inputs: staging.events, core.identifiers, core.erased_identifiers.
-- Rules: the login's profile, otherwise the e-mail's, otherwise the browser's (1), also when the login came later than
-- the event (2); on a quarantined browser only events with a login belong to somebody (3). Erased people's events are
-- gone (21). Rows dated at or after as_of do not exist yet (11).
-- A visit (session_key) is the source's own session, or where it has none, events without a silence of :session_gap.
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

matched as (
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

-- Only what comes without a session id is walked in order of time.
silences as (
    select
        event_key,
        visitor_id,
        occurred_at,
        lag(occurred_at) over (partition by visitor_id order by occurred_at asc, event_key asc) as previous_at
    from matched
    where session_id is null
),

steps as (
    select
        event_key,
        visitor_id,
        occurred_at,
        case when occurred_at <= previous_at + :session_gap then 0 else 1 end as starts_visit
    from silences
),

numbered as (
    select
        event_key,
        visitor_id,
        occurred_at,
        sum(starts_visit) over (
            partition by visitor_id
            order by occurred_at asc, event_key asc
            rows between unbounded preceding and current row
        ) as visit_number
    from steps
),

visits as (
    select
        event_key,
        min(occurred_at) over (partition by visitor_id, visit_number) as started_at
    from numbered
)

select
    matched.event_key,
    coalesce(matched.user_profile_id, matched.email_profile_id, matched.visitor_profile_id) as profile_id,
    matched.visitor_id,
    case
        when matched.session_id is not null then matched.visitor_id || '.' || matched.session_id
        else matched.visitor_id || '.' || cast(visits.started_at as varchar)
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
left join visits
    on matched.event_key = visits.event_key
where coalesce(matched.user_profile_id, matched.email_profile_id, matched.visitor_profile_id) is not null
