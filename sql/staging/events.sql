-- A row is a web event in GA4's names, once, however often it was loaded.
-- Key: event_key.
-- materialized: incremental by event_key
-- Inputs: raw.events.
-- Rules: without visitor_id an event is not stored for targeting, even with a login (6); a clock before the year 2000
-- is broken (staging.rejected_rows says so), a clock ahead of ours waits until its time has come (core, 11).
-- event_hash finds a key among many quickly; only keys that came more than once are ranked.
with trimmed as (
    select
        tidy(source) as source,
        tidy(event_key) as event_key,
        tidy(event_name) as event_name,
        tidy(visitor_id) as visitor_id,
        tidy(user_id) as user_id,
        lower(tidy(email)) as email,
        tidy(session_id) as session_id,
        page_location,
        page_referrer,
        page_title,
        tidy(transaction_id) as transaction_id,
        upper(tidy(currency)) as currency,
        browser,
        device_category,
        country,
        lower(tidy(traffic_type)) as traffic_type,
        tidy(ads_storage) as ads_storage,
        tidy(analytics_storage) as analytics_storage,
        platform,
        source_file,
        session_number,
        engagement_ms,
        value,
        is_engaged,
        occurred_at,
        loaded_at
    from raw.events
),

named as (
    select
        source,
        event_key,
        event_name,
        visitor_id,
        user_id,
        case when is_email(email) then email end as email,
        session_id,
        page_location,
        page_referrer,
        page_title,
        transaction_id,
        currency,
        browser,
        device_category,
        country,
        traffic_type,
        ads_storage,
        analytics_storage,
        platform,
        source_file,
        session_number,
        engagement_ms,
        value,
        is_engaged,
        occurred_at,
        loaded_at,
        key_hash(event_key) as event_hash
    from trimmed
    where
        event_key is not null
        and event_name is not null
        and visitor_id is not null
        and occurred_at >= timestamp '2000-01-01 00:00:00'
),

repeated as (
    select event_hash
    from named
    group by event_hash
    having count(*) > 1
),

newest as (
    select
        named.source,
        named.event_key,
        named.event_name,
        named.visitor_id,
        named.user_id,
        named.email,
        named.session_id,
        named.page_location,
        named.page_referrer,
        named.page_title,
        named.transaction_id,
        named.currency,
        named.browser,
        named.device_category,
        named.country,
        named.traffic_type,
        named.ads_storage,
        named.analytics_storage,
        named.platform,
        named.source_file,
        named.session_number,
        named.engagement_ms,
        named.value,
        named.is_engaged,
        named.occurred_at,
        named.loaded_at,
        named.event_hash
    from named
    inner join repeated
        on named.event_hash = repeated.event_hash
    qualify
        row_number() over (
            partition by named.event_key
            order by
                named.loaded_at desc nulls last,
                named.occurred_at desc,
                named.source asc nulls last,
                named.source_file desc nulls last,
                named.event_name asc,
                named.visitor_id asc,
                named.user_id asc nulls last,
                named.email asc nulls last,
                named.session_id asc nulls last,
                named.transaction_id asc nulls last,
                named.engagement_ms desc nulls last,
                named.value desc nulls last,
                named.ads_storage asc nulls last,
                named.traffic_type asc nulls last,
                named.page_location asc nulls last
        ) = 1
)

select
    named.source,
    named.event_key,
    named.event_name,
    named.visitor_id,
    named.user_id,
    named.email,
    named.session_id,
    named.page_location,
    named.page_referrer,
    named.page_title,
    named.transaction_id,
    named.currency,
    named.browser,
    named.device_category,
    named.country,
    named.traffic_type,
    named.ads_storage,
    named.analytics_storage,
    named.platform,
    named.source_file,
    named.session_number,
    named.engagement_ms,
    named.value,
    named.is_engaged,
    named.occurred_at,
    named.loaded_at,
    named.event_hash
from named
left join repeated
    on named.event_hash = repeated.event_hash
where repeated.event_hash is null
union all
select
    source,
    event_key,
    event_name,
    visitor_id,
    user_id,
    email,
    session_id,
    page_location,
    page_referrer,
    page_title,
    transaction_id,
    currency,
    browser,
    device_category,
    country,
    traffic_type,
    ads_storage,
    analytics_storage,
    platform,
    source_file,
    session_number,
    engagement_ms,
    value,
    is_engaged,
    occurred_at,
    loaded_at,
    event_hash
from newest
