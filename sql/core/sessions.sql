-- Visits.
--
-- One row is what one profile did in one visit. Key: session_key, profile_id. Input: core.events, which names the visit
-- (the source's session of a browser, or events of a browser without a longer silence than the session gap).
--
-- Rules a marketer asks about:
--   * On a shared browser what was done with a login is hers and the rest the browser's own: two rows, one session_key.
--   * Engaged (rule 16): the source's own flag, or 10 s of engagement, or 2 page views, or a product view. Where a source
--     never sends engagement time, it is the time from the first to the last event.
--   * is_bot (rule 18): a bot's agent name, or more page views within a minute than a person makes in a browser.
--     core.profiles carries it over to the whole profile, and tells who is staff.
with events as (
    select
        event_key,
        profile_id,
        visitor_id,
        session_key,
        event_name,
        lower(browser) as agent,
        source,
        engagement_ms,
        is_engaged,
        occurred_at
    from core.events
    where profile_id is not null and session_key is not null and occurred_at < :as_of
),

bot_names as (
    select names.pattern
    from (
        values
        ('%bot%'), ('%crawl%'), ('%spider%'), ('%headless%'), ('%phantomjs%'), ('%selenium%'), ('%puppeteer%'),
        ('%playwright%'), ('%lighthouse%'), ('curl%'), ('wget%'), ('python%'), ('%slurp%'), ('%facebookexternalhit%')
    ) as names (pattern)
),

agents as (
    -- Distinct: one row per agent name.
    select distinct agent
    from events
    where agent is not null
),

bot_agents as (
    -- Distinct: a name may fit two of the patterns.
    select distinct agents.agent
    from agents
    inner join bot_names
        on agents.agent like bot_names.pattern
),

timing_sources as (
    -- Distinct: one row per source that sends engagement time.
    select distinct source
    from events
    where engagement_ms is not null
),

page_views as (
    select
        event_key,
        occurred_at,
        lag(occurred_at, :bot_page_views_per_minute - 1) over (
            partition by profile_id, visitor_id
            order by occurred_at asc, event_key asc
        ) as burst_began_at
    from events
    where event_name = 'page_view'
),

bursts as (
    select event_key
    from page_views
    where occurred_at <= burst_began_at + interval '1 minute'
),

visits as (
    select
        events.session_key,
        events.profile_id,
        min(events.visitor_id) as visitor_id,
        min(events.source) as source,
        count(*) filter (where events.event_name = 'page_view') as page_views,
        count(*) filter (where events.event_name = 'view_item') as product_views,
        sum(events.engagement_ms) / 1000.0 as engagement_seconds,
        max(case when timing_sources.source is null then 0 else 1 end) as has_engagement_time,
        max(case when events.is_engaged then 1 else 0 end) as has_engaged_flag,
        max(case when bot_agents.agent is null and bursts.event_key is null then 0 else 1 end) as has_bot_signs,
        min(events.occurred_at) as started_at,
        max(events.occurred_at) as ended_at
    from events
    left join timing_sources
        on events.source = timing_sources.source
    left join bot_agents
        on events.agent = bot_agents.agent
    left join bursts
        on events.event_key = bursts.event_key
    group by events.session_key, events.profile_id
),

timed as (
    select
        session_key,
        profile_id,
        visitor_id,
        source,
        page_views,
        product_views,
        cast(
            case
                when has_engagement_time = 1 then coalesce(engagement_seconds, 0)
                else epoch(ended_at) - epoch(started_at)
            end as double
        ) as engagement_seconds,
        has_engaged_flag,
        has_bot_signs,
        started_at,
        ended_at
    from visits
)

select
    session_key,
    profile_id,
    visitor_id,
    source,
    page_views,
    product_views,
    engagement_seconds,
    has_engaged_flag = 1 or engagement_seconds >= 10 or page_views >= 2 or product_views >= 1 as is_engaged,
    has_bot_signs = 1 as is_bot,
    started_at,
    ended_at
from timed
