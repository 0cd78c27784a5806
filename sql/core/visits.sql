-- What one browser did in one visit under one login.
--
-- One row is a visit of a browser, and in it a source, a login and an e-mail (mostly there are none).
-- Key: session_key, source, user_id, email. Inputs: staging.events, core.erased_identifiers.
-- materialized: incremental by session_key
--
-- A row says nothing about whose visit it was, so it stays as it is when identity changes; core.sessions says it.
--
-- Rules a marketer asks about:
--   * A visit is the source's own session of a browser, or where it has none (session_id is null), events of a browser
--     without a silence longer than :session_gap, named by its start.
--   * Rows dated at or after as_of do not exist yet (11). What an erased login or e-mail did is gone, and what an erased
--     browser did without one of them (21).
--   * has_bot_signs (18): a bot's agent name, or :bot_page_views_per_minute page views within a minute, counted in one
--     visit under one login: three people on a kiosk are not a bot together. CUBOT makes phones.
--   * A browser's answer about ads (19) is Yes or No in GA4; granted, denied, true, false, 1 and 0 say the same.
with own_sessions as not materialized (
    select
        visitor_id,
        session_id,
        source,
        user_id,
        email,
        event_name,
        browser,
        traffic_type,
        ads_storage,
        engagement_ms,
        is_engaged,
        occurred_at
    from staging.events
    where
        session_id is not null
        and occurred_at < :as_of
        and touched_day(occurred_at)
        and touched_visit(visitor_id || '.' || session_id)
),

walks as not materialized (
    select
        visitor_id,
        session_id,
        source,
        user_id,
        email,
        event_name,
        browser,
        traffic_type,
        ads_storage,
        engagement_ms,
        is_engaged,
        occurred_at
    from staging.events
    where
        session_id is null
        and occurred_at < :as_of
        and touched_day(occurred_at)
        and touched_walk(visitor_id || '.' || cast(cast(occurred_at as date) as varchar))
),

events as not materialized (
    select * from own_sessions
    union all
    select * from walks
),

erased as (
    select
        identifier_kind,
        identifier_value,
        erased_until
    from core.erased_identifiers
),

living as not materialized (
    select
        events.visitor_id,
        events.session_id,
        events.source,
        events.user_id,
        events.email,
        events.event_name,
        events.browser,
        events.traffic_type,
        events.ads_storage,
        events.engagement_ms,
        events.is_engaged,
        events.user_id is not null
        or events.email is not null
        or coalesce(events.occurred_at >= erased_visitors.erased_until, true) as is_told,
        events.occurred_at
    from events
    left join erased as erased_users
        on
            erased_users.identifier_kind = 'user_id'
            and events.user_id = erased_users.identifier_value
    left join erased as erased_emails
        on
            erased_emails.identifier_kind = 'email'
            and events.email = erased_emails.identifier_value
    left join erased as erased_visitors
        on
            erased_visitors.identifier_kind = 'visitor_id'
            and events.visitor_id = erased_visitors.identifier_value
    where
        coalesce(events.occurred_at >= erased_users.erased_until, true)
        and coalesce(events.occurred_at >= erased_emails.erased_until, true)
),

-- Only what comes without a session id is walked in order of time.
steps as (
    select
        *,
        case
            when
                occurred_at <= lag(occurred_at) over (partition by visitor_id order by occurred_at asc) + :session_gap
                then null
            else occurred_at
        end as began_at
    from living
    where session_id is null
),

walked as (
    select
        *,
        max(began_at) over (
            partition by visitor_id
            order by occurred_at asc
            rows between unbounded preceding and current row
        ) as visit_began_at
    from steps
),

told as not materialized (
    select
        visitor_id,
        session_id,
        source,
        user_id,
        email,
        event_name,
        browser,
        traffic_type,
        ads_storage,
        engagement_ms,
        is_engaged,
        occurred_at,
        cast(null as timestamp) as visit_began_at
    from living
    where session_id is not null and is_told
    union all
    select
        visitor_id,
        session_id,
        source,
        user_id,
        email,
        event_name,
        browser,
        traffic_type,
        ads_storage,
        engagement_ms,
        is_engaged,
        occurred_at,
        visit_began_at
    from walked
    where is_told
),

visits as (
    select
        visitor_id || '.' || coalesce(session_id, cast(visit_began_at as varchar)) as session_key,
        visitor_id,
        session_id,
        source,
        user_id,
        email,
        count(*) filter (where event_name = 'page_view') as page_views,
        count(*) filter (where event_name = 'view_item') as product_views,
        cast(sum(engagement_ms) as bigint) as engagement_ms,
        count(engagement_ms) > 0 as has_engagement_time,
        coalesce(bool_or(is_engaged), false) as has_engaged_flag,
        coalesce(
            bool_or(
                regexp_matches(
                    lower(browser),
                    (
                        '(^|[^u])bot|(^|[^c])ubot|crawl|spider|headless|phantomjs|selenium|puppeteer|playwright'
                        || '|lighthouse|slurp|facebookexternalhit|^curl|^wget|^python'
                    )
                )
            ),
            false
        ) as has_bot_name,
        coalesce(bool_or(traffic_type = 'internal'), false) as is_internal,
        max(occurred_at) filter (where lower(ads_storage) in ('yes', 'granted', 'true', '1')) as ads_granted_at,
        max(occurred_at) filter (where lower(ads_storage) in ('no', 'denied', 'false', '0')) as ads_denied_at,
        max(occurred_at) filter (where event_name = 'generate_lead') as last_lead_at,
        max(occurred_at) filter (where event_name = 'sign_up') as last_sign_up_at,
        max(occurred_at) filter (
            where event_name in ('add_to_cart', 'begin_checkout', 'add_shipping_info', 'add_payment_info')
        ) as last_cart_at,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at
    from told
    group by visitor_id, session_id, visit_began_at, source, user_id, email
),

-- Visits with enough page views to be a burst are few; only their page views are looked at one by one.
busy_visits as (
    select
        session_key,
        visitor_id,
        session_id,
        source,
        user_id,
        email,
        started_at,
        ended_at
    from visits
    where page_views >= :bot_page_views_per_minute
),

busy_visitors as (
    -- Distinct: a browser may have more than one such visit.
    select distinct visitor_id
    from busy_visits
),

busy_page_views as materialized (
    select
        events.visitor_id,
        events.session_id,
        events.source,
        events.user_id,
        events.email,
        events.occurred_at
    from events
    inner join busy_visitors
        on events.visitor_id = busy_visitors.visitor_id
    where events.event_name = 'page_view'
),

page_views as (
    select
        busy_visits.session_key,
        busy_visits.source,
        busy_visits.user_id,
        busy_visits.email,
        busy_page_views.occurred_at,
        lag(busy_page_views.occurred_at, :bot_page_views_per_minute - 1) over (
            partition by busy_visits.session_key, busy_visits.source, busy_visits.user_id, busy_visits.email
            order by busy_page_views.occurred_at asc
        ) as burst_began_at
    from busy_page_views
    inner join busy_visits
        on
            busy_page_views.visitor_id = busy_visits.visitor_id
            and busy_page_views.session_id is not distinct from busy_visits.session_id
            and busy_page_views.source is not distinct from busy_visits.source
            and busy_page_views.user_id is not distinct from busy_visits.user_id
            and busy_page_views.email is not distinct from busy_visits.email
            and busy_page_views.occurred_at between busy_visits.started_at and busy_visits.ended_at
),

bursts as (
    -- Distinct: one row per visit, however many bursts it has.
    select distinct
        session_key,
        source,
        user_id,
        email
    from page_views
    where occurred_at <= burst_began_at + interval '1 minute'
)

select
    visits.session_key,
    visits.visitor_id,
    visits.session_id,
    visits.source,
    visits.user_id,
    visits.email,
    visits.page_views,
    visits.product_views,
    visits.engagement_ms,
    visits.has_engagement_time,
    visits.has_engaged_flag,
    visits.has_bot_name or bursts.session_key is not null as has_bot_signs,
    visits.is_internal,
    visits.ads_granted_at,
    visits.ads_denied_at,
    visits.last_lead_at,
    visits.last_sign_up_at,
    visits.last_cart_at,
    visits.started_at,
    visits.ended_at
from visits
left join bursts
    on
        visits.session_key = bursts.session_key
        and visits.source is not distinct from bursts.source
        and visits.user_id is not distinct from bursts.user_id
        and visits.email is not distinct from bursts.email
