-- A row is one e-mail or ad touch of one person: sent, delivered, open, click, bounce, complaint or unsubscribe.
-- Key: source, engagement_id.
-- Inputs: raw.engagement.
-- Rules: a touch loaded twice counts once; a malformed e-mail is no e-mail (4).
with trimmed as (
    select
        nullif(trim(source, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as source,
        nullif(trim(engagement_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as engagement_id,
        nullif(trim(contact_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as contact_id,
        lower(nullif(trim(email, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as email,
        nullif(trim(visitor_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as visitor_id,
        coalesce(lower(nullif(trim(channel, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), 'email') as channel,
        lower(nullif(trim(type, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as type,
        nullif(trim(campaign_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as campaign_id,
        coalesce(is_bot, false) as is_bot,
        occurred_at,
        loaded_at
    from raw.engagement
)

select
    source,
    engagement_id,
    contact_id,
    case when regexp_matches(email, '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$') then email end as email,
    visitor_id,
    channel,
    type,
    campaign_id,
    is_bot,
    occurred_at,
    loaded_at
from trimmed
where
    engagement_id is not null
    and type is not null
    and occurred_at is not null
qualify
    row_number() over (
        partition by source, engagement_id
        order by
            loaded_at desc nulls last,
            occurred_at desc,
            type asc,
            email asc nulls last,
            contact_id asc nulls last,
            visitor_id asc nulls last,
            campaign_id asc nulls last,
            is_bot desc
    ) = 1
