"""The yardstick: one aggregation over all events that keeps the full state of every visitor.

No correct answer about visitors can be had from these rows with less work than reading them once, so the cost of the
whole build is told as a multiple of it.
"""

from __future__ import annotations

BOUND = """
select
    visitor_id,
    count(*) as events,
    count(distinct session_id) as sessions,
    max(user_id) as user_id,
    max(email) as email,
    max(ads_storage) as ads_storage,
    max(traffic_type) as traffic_type,
    max(browser) as browser,
    sum(case when event_name = 'page_view' then 1 else 0 end) as page_views,
    sum(case when event_name = 'view_item' then 1 else 0 end) as product_views,
    sum(case when event_name = 'add_to_cart' then 1 else 0 end) as cart_adds,
    sum(case when event_name = 'purchase' then 1 else 0 end) as purchases,
    sum(value) as amount,
    sum(engagement_ms) as engagement_ms,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at,
    max(case when event_name = 'page_view' then occurred_at end) as last_page_view_at,
    max(case when event_name = 'view_item' then occurred_at end) as last_product_view_at,
    max(case
        when event_name in ('add_to_cart', 'remove_from_cart', 'begin_checkout') then occurred_at
    end) as last_cart_at,
    max(case when event_name = 'purchase' then occurred_at end) as last_purchase_at,
    max(case when event_name in ('generate_lead', 'sign_up') then occurred_at end) as last_lead_at,
    max(loaded_at) as last_loaded_at
from raw.events
where visitor_id is not null
group by visitor_id
"""
