-- A row is a web event in GA4's names, once, however often it was loaded.
-- Key: event_key.
-- materialized: view
-- Inputs: raw.events, staging.event_loads, staging.mended_keys, staging.mended_events.
-- Rules: without visitor_id an event is not stored for targeting, even with a login (6); a clock before the year 2000
-- is broken (staging.rejected_rows says so), a clock ahead of ours waits until its time has come (core, 11).
-- A placeholder (known) is no login and no order number.
-- What came once and needs no trimming is read where it was loaded; the rest is in staging.mended_events. What was loaded
-- since the last build is not here yet. event_hash finds a key among many quickly; two keys may have the same.
select
    events.source,
    events.event_key,
    events.event_name,
    events.visitor_id,
    known(events.user_id) as user_id,
    events.email,
    events.session_id,
    events.page_location,
    events.page_referrer,
    events.page_title,
    known(events.transaction_id) as transaction_id,
    events.currency,
    events.browser,
    events.device_category,
    events.country,
    events.traffic_type,
    events.ads_storage,
    events.analytics_storage,
    events.platform,
    events.source_file,
    events.session_number,
    events.engagement_ms,
    events.value,
    events.is_engaged,
    events.occurred_at,
    events.loaded_at,
    key_hash(events.event_key) as event_hash
from raw.events as events
semi join staging.event_loads as loads
    on
        coalesce(events.source, '') = loads.source
        and coalesce(events.loaded_at, timestamp '1970-01-01 00:00:00') <= loads.loaded_until
anti join staging.mended_keys as mended
    on key_hash(events.event_key) = mended.loaded_hash
where
    events.event_key is not null
    and events.event_name is not null
    and events.visitor_id is not null
    and events.occurred_at >= timestamp '2000-01-01 00:00:00'
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
from staging.mended_events
