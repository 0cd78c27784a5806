-- A row is a web event that came more than once or had to be trimmed, once, as it stands.
-- Key: event_key.
-- materialized: incremental by event_key
-- Inputs: raw.events, staging.mended_keys, staging.event_loads.
-- Rules: the copy that was loaded last stands. The others are those of staging.events, of which this is a part.
-- Materialized, so that nothing is trimmed before these few rows are found.
with trimmed as materialized (
    select
        tidy(events.source) as source,
        tidy(events.event_key) as event_key,
        tidy(events.event_name) as event_name,
        tidy(events.visitor_id) as visitor_id,
        known(tidy(events.user_id)) as user_id,
        lower(tidy(events.email)) as email,
        tidy(events.session_id) as session_id,
        events.page_location,
        events.page_referrer,
        events.page_title,
        known(tidy(events.transaction_id)) as transaction_id,
        upper(tidy(events.currency)) as currency,
        events.browser,
        events.device_category,
        events.country,
        lower(tidy(events.traffic_type)) as traffic_type,
        tidy(events.ads_storage) as ads_storage,
        tidy(events.analytics_storage) as analytics_storage,
        events.platform,
        events.source_file,
        events.session_number,
        events.engagement_ms,
        events.value,
        events.is_engaged,
        events.occurred_at,
        events.loaded_at
    from raw.events as events
    semi join staging.event_loads as loads
        on
            coalesce(events.source, '') = loads.source
            and coalesce(events.loaded_at, timestamp '1970-01-01 00:00:00') <= loads.loaded_until
    semi join staging.mended_keys as mended
        on key_hash(events.event_key) = mended.loaded_hash
)

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
            case when is_email(email) then email end asc nulls last,
            session_id asc nulls last,
            transaction_id asc nulls last,
            engagement_ms desc nulls last,
            value desc nulls last,
            ads_storage asc nulls last,
            traffic_type asc nulls last,
            page_location asc nulls last
    ) = 1
