-- A row is a row of raw.events that has a key: by it a build finds what came more than once, and when.
-- Key: none.
-- materialized: incremental by load
-- Inputs: raw.events.
-- event_hash is of the trimmed key, loaded_hash of the key as it came. is_plain: there is nothing to trim, or to
-- write in small or large letters, in any column. source and loaded_at are as they came.
select
    source,
    key_hash(coalesce(tidy(event_key), event_key)) as event_hash,
    key_hash(event_key) as loaded_hash,
    is_tidy(source)
    and is_tidy(event_key)
    and is_tidy(event_name)
    and is_tidy(visitor_id)
    and is_tidy(user_id)
    and is_tidy(session_id)
    and is_tidy(transaction_id)
    and is_tidy(ads_storage)
    and is_tidy(analytics_storage)
    and coalesce(upper(tidy(currency)) = currency, currency is null)
    and coalesce(lower(tidy(traffic_type)) = traffic_type, traffic_type is null)
    and coalesce(lower(tidy(email)) = email and is_email(email), email is null) as is_plain,
    loaded_at
from raw.events
where event_key is not null
