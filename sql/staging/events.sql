-- A row is a web event in GA4's names, once, however often it was loaded.
-- Key: event_key.
-- Inputs: raw.events.
-- Rules: without visitor_id an event is not stored for targeting, even with a login (6); a clock before the year 2000
-- is broken (staging.rejected_rows says so), a clock ahead of ours waits until its time has come (core, 11).
with trimmed as (
    select
        nullif(trim(source, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as source,
        nullif(trim(event_key, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as event_key,
        nullif(trim(event_name, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as event_name,
        nullif(trim(visitor_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as visitor_id,
        nullif(trim(user_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as user_id,
        lower(nullif(trim(email, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as email,
        nullif(trim(session_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as session_id,
        page_location,
        page_referrer,
        page_title,
        nullif(trim(transaction_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as transaction_id,
        upper(nullif(trim(currency, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as currency,
        browser,
        device_category,
        country,
        lower(nullif(trim(traffic_type, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as traffic_type,
        nullif(trim(ads_storage, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as ads_storage,
        nullif(trim(analytics_storage, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as analytics_storage,
        platform,
        source_file,
        session_number,
        engagement_ms,
        value,
        is_engaged,
        occurred_at,
        loaded_at
    from raw.events
)

select
    source,
    event_key,
    event_name,
    visitor_id,
    user_id,
    case when regexp_matches(email, '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$') then email end as email,
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
    loaded_at
from trimmed
where
    event_key is not null
    and event_name is not null
    and visitor_id is not null
    and occurred_at >= timestamp '2000-01-01 00:00:00'
qualify
    row_number() over (
        partition by event_key
        order by
            loaded_at desc nulls last,
            occurred_at desc,
            source asc nulls last,
            source_file desc nulls last,
            event_name asc,
            visitor_id asc,
            user_id asc nulls last,
            email asc nulls last,
            session_id asc nulls last,
            transaction_id asc nulls last,
            engagement_ms desc nulls last,
            value desc nulls last,
            ads_storage asc nulls last,
            traffic_type asc nulls last,
            page_location asc nulls last
    ) = 1
