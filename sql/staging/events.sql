-- A row is a web event in GA4's names, once, however often it was loaded.
-- Key: event_key.
-- materialized: incremental by event_key
-- Inputs: raw.events.
-- Rules: without visitor_id an event is not stored for targeting, even with a login (6); a clock before the year 2000
-- is broken (staging.rejected_rows says so), a clock ahead of ours waits until its time has come (core, 11).
-- event_hash finds a key among many quickly; only keys that came more than once are ranked.
with repeated as (
    select key_hash(tidy(event_key)) as event_hash
    from raw.events
    where tidy(event_key) is not null
    group by key_hash(tidy(event_key))
    having count(*) > 1
),

told as (
    select
        events.*,
        false as is_repeated
    from raw.events as events
    left join repeated
        on key_hash(tidy(events.event_key)) = repeated.event_hash
    where repeated.event_hash is null
    union all
    select
        events.*,
        true as is_repeated
    from raw.events as events
    inner join repeated
        on key_hash(tidy(events.event_key)) = repeated.event_hash
),

trimmed as (
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
        loaded_at,
        is_repeated
    from told
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
        is_repeated,
        key_hash(event_key) as event_hash
    from trimmed
    where
        event_key is not null
        and event_name is not null
        and visitor_id is not null
        and occurred_at >= timestamp '2000-01-01 00:00:00'
),

newest as (
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
    from named
    where is_repeated
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
)

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
from named
where not is_repeated
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
