-- A row is the key of web events that staging.events does not read where they were loaded: because they came more than
-- once, or because something has to be trimmed.
-- Key: event_hash, loaded_hash (staging.event_keys).
-- materialized: incremental by event_hash
-- Inputs: staging.event_keys.
with mended as (
    select event_hash
    from staging.event_keys
    group by event_hash
    having count(*) > 1 or not bool_and(is_plain)
)

-- Distinct: the copies of an event mostly have the same key.
select distinct
    event_keys.event_hash,
    event_keys.loaded_hash
from staging.event_keys as event_keys
semi join mended
    on event_keys.event_hash = mended.event_hash
