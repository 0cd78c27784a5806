-- A row is one e-mail or ad touch of a profile: sent, delivered, open, click, bounce, complaint or unsubscribe.
-- Key: source, engagement_id. A touch of nobody we know has no row.
-- materialized: incremental by profile_id
-- Inputs: staging.engagement, core.record_profiles.
-- Rules: rows dated at or after as_of do not exist yet (11; core.record_profiles leaves them out).
select
    touches.engagement_id,
    record_profiles.profile_id,
    touches.source,
    touches.channel,
    touches.type,
    touches.campaign_id,
    touches.is_bot,
    touches.occurred_at
from staging.engagement as touches
inner join core.record_profiles as record_profiles
    on
        record_profiles.record_kind = 'engagement'
        and touches.source = record_profiles.source
        and touches.engagement_id = record_profiles.record_id
