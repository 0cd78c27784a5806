-- A row is a source of web events and its newest load that builds have taken in.
-- Key: source (empty for none).
-- Inputs: staging.event_keys.
-- staging.events shows nothing newer, so that the copies of an event never stand in it side by side.
select
    coalesce(source, '') as source,
    max(coalesce(loaded_at, timestamp '1970-01-01 00:00:00')) as loaded_until
from staging.event_keys
group by coalesce(source, '')
