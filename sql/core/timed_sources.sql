-- A row is a source of web events that tells how long people were engaged.
-- Key: source.
-- Inputs: core.visits.
-- Rules (16): one such event ever is enough; then a visit of that source without engagement time was not engaged for any.
-- Distinct: one row per source.
select distinct source
from core.visits
where has_engagement_time
