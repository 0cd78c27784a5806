-- A row is one e-mail or ad touch of one person: sent, delivered, open, click, bounce, complaint or unsubscribe.
-- Key: source, engagement_id.
-- Inputs: raw.engagement.
-- Rules: a touch loaded twice counts once; a malformed e-mail is no e-mail (4).
with trimmed as (
    select
        tidy(source) as source,
        tidy(engagement_id) as engagement_id,
        tidy(contact_id) as contact_id,
        lower(tidy(email)) as email,
        tidy(visitor_id) as visitor_id,
        coalesce(lower(tidy(channel)), 'email') as channel,
        lower(tidy(type)) as type,
        tidy(campaign_id) as campaign_id,
        coalesce(is_bot, false) as is_bot,
        occurred_at,
        loaded_at
    from raw.engagement
)

select
    source,
    engagement_id,
    contact_id,
    case when is_email(email) then email end as email,
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
