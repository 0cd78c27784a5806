"""The shop of the benchmark: rows of raw.* for as many visitors as one asks for, drawn in DuckDB's SQL.

Time runs in daily loads. Load n holds what happened on day n (CRM rows: what changed on it; load 0 also what the CRM
knew before), some events of the days before that came late, and some events that an earlier load brought already. Rows
are appended in the order of loads and, within a load, of time, as ingestion does.

Everything is drawn from hashes of (seed, visitor, session, event), so a load is the same however the loads are cut into
calls, and the process is stationary: visitors are born at a constant rate, also before the first load, and come back by
the same law. A later load therefore has the share of known and new visitors that a shop of any age has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

FIRST_DAY = datetime(2020, 1, 1)
# A history has this many daily loads, so that two more are one percent of it.
DAYS = 200
# What the draws below come to; the tests hold the generator to it.
EVENTS_PER_VISITOR = 19.9
REPEATED = 0.01
LATE = 0.005
RAW_TABLES = ("events", "event_items", "contacts", "consents", "orders", "subscriptions", "engagement", "carts")
_EVENTS_PER_STEP = 4_000_000


@dataclass(frozen=True)
class Shop:
    """A shop with this many events a day (repeated ones not counted)."""

    events_per_day: float
    seed: int = 1

    @property
    def visitors_per_day(self) -> float:
        return self.events_per_day / EVENTS_PER_VISITOR

    def as_of(self, loads: int) -> datetime:
        """The time at which the first `loads` loads have just been loaded."""
        return FIRST_DAY + timedelta(days=loads, hours=1)


def steps(shop: Shop, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of loads, each small enough to be drawn in bounded memory."""
    size = max(1, int(_EVENTS_PER_STEP / shop.events_per_day))
    for begin in range(first, end, size):
        yield begin, min(begin + size, end)


def write_step(connection: duckdb.DuckDBPyConnection, shop: Shop, first: int, end: int) -> None:
    """Append one range of loads to raw.*."""
    values = {
        "seed": shop.seed,
        "per_day": shop.visitors_per_day,
        "first": first,
        "end": end,
        "day0": FIRST_DAY,
    }
    for statement in _STATEMENTS:
        used = {name: value for name, value in values.items() if f"${name}" in statement}
        connection.execute(statement, used or None)


# Draws and words. `u` is a number in [0, 1) of a hash and the number of the draw; `child` the hash of a part of it.
_WORDS = """
create or replace temp macro u(h, draw) as (hash(xor(h, draw::ubigint)) >> 11) / 9007199254740992.0;
create or replace temp macro child(h, part) as hash(xor(h, (1000 + part)::ubigint));
create or replace temp macro one_of(h, draw, words) as words[1 + floor(u(h, draw) * len(words))::int];
create or replace temp macro heavy(h, draw, least_value, alpha, cap) as
    least(cap, ceil(least_value * power(1 - u(h, draw), -1 / alpha)))::int;
create or replace temp macro login_of(account) as 'u' || account;
create or replace temp macro mail_of(account) as 'p' || account || '@mail' || account % 7 || '.example';
create or replace temp macro at_day(day0, day) as
    day0 + to_seconds(floor(day * 86400)::bigint);
create or replace temp macro load_at(day0, load_number) as
    day0 + to_days(load_number::int + 1) + interval '30 minutes';
"""

# The hash is mixed with the seed first, so that two seeds have nothing in common.
_VISITORS = """
create or replace temp table bench_visitors as
with numbered as (
    select
        range as v,
        hash(xor(hash(range::ubigint), hash($seed::ubigint))) as h,
        range / $per_day - {warm_up} as born
    from range(
        greatest(0, floor(($first - {lookback} + {warm_up}) * $per_day))::bigint,
        ceil(($end + 1 + {warm_up}) * $per_day)::bigint
    )
)
select
    v,
    h,
    born,
    u(h, 1) < 0.12 as is_member,
    u(h, 2) < 0.01 as is_family,
    v % 20000 = 77 as is_kiosk,
    v % 5000 = 33 as is_fast_bot,
    case when u(h, 3) < 0.15 then v - v % 40 else v end as account,
    case when u(h, 4) < 0.05 then 'web_log' else 'ga4_export' end as source,
    (hash(h) % 9000000000 + 1000000000) || '.' || epoch(at_day($day0::timestamp, born))::bigint as visitor_id,
    case when u(h, 5) < 0.002 then 'ExampleBot/2.1 crawler'
         else one_of(h, 6, ['Chrome', 'Chrome', 'Chrome', 'Safari', 'Safari', 'Firefox', 'Edge']) end as browser,
    one_of(h, 7, ['mobile', 'mobile', 'desktop', 'tablet']) as device_category,
    one_of(h, 8, ['DE', 'DE', 'AT', 'CH', 'FR', 'US']) as country,
    case when u(h, 9) < 0.001 then 'internal' end as traffic_type,
    case when u(h, 10) < 0.7 then 'Yes' when u(h, 10) < 0.9 then 'No' end as ads_storage,
    case when u(h, 11) < 0.03 then 'USD' else 'EUR' end as currency
from numbered
"""

_SESSIONS = """
create or replace temp table bench_sessions as
with counted as (
    select
        v,
        h,
        unnest(range(case
            when is_kiosk then 40
            when is_member or is_family then 1 + heavy(h, 20, 1, 1.5, 60)
            else heavy(h, 20, 1, 1.5, 60)
        end)) as s
    from bench_visitors
    where born >= $first - {warm_up} - {latest} - 1
),

hashed as (
    select
        v,
        h,
        s,
        child(h, s) as sh
    from counted
),

timed as (
    select
        hashed.v,
        hashed.s,
        hashed.sh,
        floor((
            visitors.born + hashed.s * 0.04 * exp(u(hashed.h, 21) * 4.8) * (0.8 + 0.4 * u(hashed.sh, 1))
        ) * 86400)::bigint as start_second,
        case when visitors.is_fast_bot then 300 else heavy(hashed.sh, 2, 1.75, 1.42, 120) end as events_count,
        case when visitors.is_fast_bot then 0.2 else 4 + floor(u(hashed.sh, 3) * 45) end as pace,
        case
            when visitors.is_kiosk then 2000000000000 + hashed.v * 100 + hashed.s
            when not (visitors.is_member or visitors.is_family) or hashed.s < floor(u(hashed.h, 22) * 2) then null
            when u(hashed.sh, 4) >= 0.7 then null
            -- A family has two logins, and two families in ten know another one.
            when visitors.is_family and hashed.s % 2 = 1 then 1000000000000 + hashed.v
            else visitors.account
        end as logged_in,
        u(hashed.h, 23) < 0.3 as tells_email
    from hashed
    inner join bench_visitors as visitors
        on hashed.v = visitors.v
    where hashed.s * 0.04 * exp(u(hashed.h, 21) * 4.8) <= {warm_up} - 20
)

select * from timed
where start_second >= ($first - {latest} - 1) * 86400 and start_second < $end * 86400
"""

_EVENTS = """
create or replace temp table bench_events as
with counted as (
    select
        v,
        s,
        sh,
        start_second,
        pace,
        logged_in,
        tells_email,
        unnest(range(events_count)) as i
    from bench_sessions
),

hashed as (
    select
        v,
        s,
        sh,
        i,
        child(sh, i) as h,
        (start_second * 1000000) + (i * pace * 1000000)::bigint as microsecond,
        case when i > 0 then logged_in end as account,
        tells_email,
        start_second
    from counted
),

named as (
    select
        hashed.*,
        floor(microsecond / 86400000000)::bigint as happened_on,
        case
            when visitors.is_fast_bot then 'page_view'
            when u(hashed.h, 1) < case when hashed.account is not null then 0.075 else 0.004 end then 'purchase'
            when u(hashed.h, 2) < 0.605 then 'page_view'
            when u(hashed.h, 2) < 0.805 then 'view_item'
            when u(hashed.h, 2) < 0.856 then 'add_to_cart'
            when u(hashed.h, 2) < 0.866 then 'remove_from_cart'
            when u(hashed.h, 2) < 0.886 then 'begin_checkout'
            when u(hashed.h, 2) < 0.9 then 'login'
            when u(hashed.h, 2) < 0.902 then 'sign_up'
            when u(hashed.h, 2) < 0.904 then 'generate_lead'
            when u(hashed.h, 2) < 0.94 then 'scroll'
            else 'user_engagement'
        end as event_name,
        case when u(hashed.h, 3) < {late} then 1 + floor(u(hashed.h, 4) * 3)::int else 0 end as days_late
    from hashed
    inner join bench_visitors as visitors
        on hashed.v = visitors.v
),

copies as (
    select
        *,
        unnest(case when u(h, 5) < {repeated} then [0, 1 + floor(u(h, 6) * 2)::int] else [0] end) as days_repeated
    from named
)

select
    *,
    happened_on + days_late + days_repeated as load
from copies
where
    (happened_on + days_late + days_repeated >= $first and happened_on + days_late + days_repeated < $end)
    -- Orders follow their purchases on the same day, a cancellation on the next.
    or (event_name = 'purchase' and days_repeated = 0 and happened_on >= $first - 1 and happened_on < $end)
"""

_RAW_EVENTS = """
insert into raw.events
select
    visitors.source,
    md5(events.v || '.' || events.s || '.' || events.i || '.' || $seed) as event_key,
    events.event_name,
    visitors.visitor_id,
    login_of(events.account) as user_id,
    case
        when events.event_name in ('login', 'sign_up', 'generate_lead', 'begin_checkout') and events.tells_email
            then mail_of(events.account)
    end as email,
    case when visitors.source = 'ga4_export' then cast(events.start_second + 1577836800 as text) end as session_id,
    case
        when events.event_name in ('begin_checkout', 'purchase') then 'https://shop.example/checkout'
        else 'https://shop.example/p/' || floor(u(events.sh, 30 + events.i % 3) * 5000)::int
    end as page_location,
    case when events.i = 0 then one_of(events.sh, 40, ['https://search.example/', 'https://social.example/', null]) end
        as page_referrer,
    'Shop: product ' || floor(u(events.sh, 30 + events.i % 3) * 5000)::int as page_title,
    case when events.event_name = 'purchase' and u(events.h, 7) < 0.98 then 'T' || events.h end
        as transaction_id,
    visitors.currency,
    visitors.browser,
    visitors.device_category,
    visitors.country,
    visitors.traffic_type,
    visitors.ads_storage,
    'Yes' as analytics_storage,
    'WEB' as platform,
    'day_' || events.load as source_file,
    events.s + 1 as session_number,
    case
        when visitors.source = 'ga4_export' and u(events.h, 8) < 0.3 then 500 + floor(u(events.h, 9) * 9000)::bigint
    end as engagement_ms,
    case when events.event_name = 'purchase' then 10 + floor(u(events.h, 10) * 19000) / 100 end as value,
    case when visitors.source = 'ga4_export' and u(events.sh, 5) < 0.3 then true end as is_engaged,
    $day0::timestamp + to_microseconds(events.microsecond) as occurred_at,
    load_at($day0::timestamp, events.load) as loaded_at
from bench_events as events
inner join bench_visitors as visitors
    on events.v = visitors.v
where events.load >= $first and events.load < $end
order by events.load, events.microsecond
"""

_RAW_EVENT_ITEMS = """
insert into raw.event_items
with lines as (
    select
        events.*,
        unnest(range(case
            when event_name in ('view_item', 'add_to_cart', 'remove_from_cart') then 1
            else 1 + floor(u(h, 11) * 2)::int
        end)) as item_index
    from bench_events as events
    where
        load >= $first and load < $end
        and event_name in ('view_item', 'add_to_cart', 'remove_from_cart', 'begin_checkout', 'purchase')
),

products as (
    -- Three products a visit, so that what is taken out was often put in before.
    select
        *,
        floor(u(sh, 30 + (i + item_index) % 3) * 5000)::int as product
    from lines
)

select
    visitors.source,
    md5(products.v || '.' || products.s || '.' || products.i || '.' || $seed) as event_key,
    products.item_index,
    'S' || lpad(products.product::text, 5, '0') as sku,
    'Product ' || products.product as name,
    'Category ' || products.product % 20 as category,
    'Brand ' || products.product % 50 as brand,
    'https://shop.example/img/' || products.product || '.jpg' as image_url,
    'https://shop.example/p/' || products.product as product_url,
    case when products.event_name = 'view_item' then null else 1 + floor(u(products.h, 12) * 2.2)::bigint end
        as quantity,
    5 + products.product % 90 + 0.99 as price,
    load_at($day0::timestamp, products.load) as loaded_at
from products
inner join bench_visitors as visitors
    on products.v = visitors.v
order by products.load, products.microsecond
"""

_RAW_ORDERS = """
insert into raw.orders
with web as (
    select
        'shop' as source,
        'O' || events.h as order_id,
        case when u(events.h, 7) < 0.98 then 'T' || events.h end as transaction_id,
        null as contact_id,
        case
            when events.account is not null then mail_of(events.account)
            when u(events.h, 14) < 0.8 then 'guest' || events.v || '@guests.example'
        end as email,
        null as phone,
        login_of(events.account) as user_id,
        case when u(events.h, 14) >= 0.8 then visitors.visitor_id end as visitor_id,
        unnest(
            case
                -- Without a number on either side they are the same order by their amount.
                when u(events.h, 7) < 0.98 and u(events.h, 15) < 0.06 then [0, 1]
                else [0]
            end
        ) as version,
        case when u(events.h, 15) < 0.05 then 'cancelled' else 'failed' end as later_status,
        visitors.currency,
        10 + floor(u(events.h, 10) * 19000) / 100 as total_amount,
        u(events.h, 7) < 0.98 and u(events.h, 16) < 0.001 as is_test,
        $day0::timestamp + to_microseconds(events.microsecond + 2000000) as ordered_at,
        events.happened_on
    from bench_events as events
    inner join bench_visitors as visitors
        on events.v = visitors.v
    where events.event_name = 'purchase' and events.days_repeated = 0 and u(events.h, 13) < 0.95
),

by_phone as (
    -- Ordered in the shop or on the phone: the CRM knows who it was, or only the number that called.
    select
        'crm' as source,
        'C' || c || '.1' as order_id,
        null as transaction_id,
        case when u(h, 60) < 0.8 or phone is null then contact_id end as contact_id,
        null as email,
        case when u(h, 60) >= 0.8 then phone end as phone,
        null as user_id,
        null as visitor_id,
        0 as version,
        null as later_status,
        'EUR' as currency,
        10 + floor(u(h, 61) * 19000) / 100 as total_amount,
        false as is_test,
        at_day($day0::timestamp, created_on + 1 + u(h, 62) * 90) as ordered_at,
        floor(created_on + 1 + u(h, 62) * 90) as happened_on
    from bench_contacts
    where u(h, 63) < 0.08
),

orders as (
    select * from web
    union all
    select * from by_phone
)

select
    source,
    order_id,
    transaction_id,
    contact_id,
    email,
    phone,
    user_id,
    visitor_id,
    case when version = 0 then 'paid' else later_status end as status,
    currency,
    total_amount,
    is_test,
    ordered_at,
    ordered_at + to_days(version::int) as updated_at,
    load_at($day0::timestamp, greatest(0, happened_on + version)) as loaded_at
from orders
where greatest(0, happened_on + version) >= $first and greatest(0, happened_on + version) < $end
order by greatest(0, happened_on + version), ordered_at
"""

# Contacts of people with a login, and of people who never came to the site. Before the first day the CRM was there.
_CONTACTS = """
create or replace temp table bench_contacts as
select
    v as c,
    hash(xor(h, 7777::ubigint)) as h,
    'c' || v as contact_id,
    case when is_member then login_of(v) end as user_id,
    mail_of(v) as email,
    -- Some share their phone with the whole house.
    case
        when u(h, 41) < 0.3 then '+4989' || lpad((case when u(h, 42) < 0.05 then v - v % 30 else v end)::text, 10, '0')
    end as phone,
    country,
    born + u(h, 43) * 30 - 3 as created_on
from bench_visitors
where not is_kiosk and ((is_member and u(h, 40) < 0.6) or (not is_member and u(h, 40) < 0.035))
"""

_RAW_CONTACTS = """
insert into raw.contacts
with versions as (
    select
        *,
        unnest(case when u(h, 1) < 0.3 then [0, 1] else [0] end) as version
    from bench_contacts
),

dated as (
    select
        *,
        created_on + version * (2 + u(h, 2) * 80) as changed_on
    from versions
)

select
    'crm' as source,
    contact_id,
    case when version = 1 and u(h, 3) < 0.1 then 'new.' || email else email end as email,
    phone,
    user_id,
    'First' || c % 1000 as first_name,
    'Last' || c % 5000 as last_name,
    country,
    at_day($day0::timestamp, created_on) as created_at,
    at_day($day0::timestamp, changed_on) as updated_at,
    version = 1 and u(h, 3) > 0.97 as is_deleted,
    load_at($day0::timestamp, greatest(0, floor(changed_on))) as loaded_at
from dated
where greatest(0, floor(changed_on)) >= $first and greatest(0, floor(changed_on)) < $end
order by greatest(0, floor(changed_on)), changed_on
"""

_RAW_CONSENTS = """
insert into raw.consents
with answers as (
    select
        *,
        unnest(['email', 'ads']) as channel
    from bench_contacts
),

versions as (
    select
        *,
        unnest(case when u(h, 10) < 0.08 then [0, 1] else [0] end) as version
    from answers
),

dated as (
    select
        *,
        created_on + version * (3 + u(h, 11) * 100) as changed_on
    from versions
)

select
    'crm' as source,
    contact_id,
    case when u(h, 12) < 0.5 then email end as email,
    channel,
    case
        when version = 1 or u(h, case channel when 'email' then 13 else 14 end) < 0.06 then 'denied'
        when u(h, case channel when 'email' then 13 else 14 end) < 0.76 then 'granted'
        else 'unknown'
    end as status,
    null as reason,
    at_day($day0::timestamp, changed_on) as changed_at,
    load_at($day0::timestamp, greatest(0, floor(changed_on))) as loaded_at
from dated
where greatest(0, floor(changed_on)) >= $first and greatest(0, floor(changed_on)) < $end
order by greatest(0, floor(changed_on)), changed_on
"""

_RAW_SUBSCRIPTIONS = """
insert into raw.subscriptions
with plans as (
    select
        *,
        unnest(case when u(h, 20) < 0.3 then [0, 1] else [0] end) as plan_number
    from bench_contacts
    where u(h, 21) < 0.3
),

periods as (
    select
        *,
        created_on + u(h, 22) * 20 + plan_number * 60 as started_on,
        created_on + u(h, 22) * 20 + plan_number * 60 + 5 + u(child(h, plan_number), 23) * 50 as ends_on,
        u(child(h, plan_number), 24) as how
    from plans
),

versions as (
    select
        *,
        unnest(case when how < 0.7 then [0, 1] else [0] end) as version
    from periods
),

dated as (
    select
        *,
        case version when 0 then started_on else ends_on end as changed_on
    from versions
)

select
    'billing' as source,
    's' || c || '.' || plan_number as subscription_id,
    null as contact_id,
    case when user_id is null or u(h, 25) < 0.5 then email end as email,
    user_id,
    'paid' as kind,
    one_of(h, 26, ['basic', 'plus', 'family']) as plan,
    case
        when version = 0 then 'active'
        when how < 0.35 then 'expired'
        when how < 0.6 then 'cancelled'
        when how < 0.65 then 'failed'
        else 'past_due'
    end as status,
    'EUR' as currency,
    9.9 as amount,
    at_day($day0::timestamp, started_on) as started_at,
    case
        when version = 0 then null
        -- Cancelled, and paid until later.
        when how >= 0.35 and how < 0.6 then at_day($day0::timestamp, ends_on + u(h, 27) * 25)
        else at_day($day0::timestamp, ends_on)
    end as ended_at,
    case when version = 1 and how >= 0.35 and how < 0.6 then at_day($day0::timestamp, ends_on) end as cancelled_at,
    at_day($day0::timestamp, changed_on) as updated_at,
    false as is_deleted,
    load_at($day0::timestamp, greatest(0, floor(changed_on))) as loaded_at
from dated
where greatest(0, floor(changed_on)) >= $first and greatest(0, floor(changed_on)) < $end
order by greatest(0, floor(changed_on)), changed_on
"""

_RAW_ENGAGEMENT = """
insert into raw.engagement
with sends as (
    -- Six newsletters, one every second week since the contact was made.
    select
        *,
        unnest(range(6)) as n
    from bench_contacts
    where u(h, 13) >= 0.06 and u(h, 13) < 0.76
),

touches as (
    select
        c,
        contact_id,
        n,
        child(h, n) as th,
        created_on + 2 + n * 14 as sent_on,
        unnest(
            case
                when u(child(h, n), 30) < 0.005 then ['sent', 'bounce']
                when u(h, 31) < 0.5 and u(child(h, n), 30) < 0.05 then ['sent', 'open', 'click']
                when u(h, 31) < 0.5 and u(child(h, n), 30) < 0.5 then ['sent', 'open']
                else ['sent']
            end
        ) as type
    from sends
),

dated as (
    select
        *,
        sent_on + case type when 'sent' then 0 when 'bounce' then 0.01 else u(th, 32) end as happened_on
    from touches
)

select
    'newsletter' as source,
    c || '.' || n || '.' || type as engagement_id,
    null as contact_id,
    mail_of(c) as email,
    null as visitor_id,
    'email' as channel,
    type,
    'newsletter_' || n as campaign_id,
    type <> 'sent' and u(th, 33) < 0.05 as is_bot,
    at_day($day0::timestamp, happened_on) as occurred_at,
    load_at($day0::timestamp, greatest(0, floor(happened_on))) as loaded_at
from dated
where greatest(0, floor(happened_on)) >= $first and greatest(0, floor(happened_on)) < $end
order by greatest(0, floor(happened_on)), happened_on
"""

_RAW_CARTS = """
insert into raw.carts
with versions as (
    select
        *,
        unnest(case when u(h, 40) < 0.5 then [0, 1] else [0] end) as version
    from bench_contacts
    where u(h, 41) < 0.1
),

dated as (
    select
        *,
        created_on + u(h, 42) * 60 as begun_on,
        created_on + u(h, 42) * 60 + version * (0.1 + u(h, 43) * 3) as changed_on
    from versions
)

select
    'shop' as source,
    'k' || c as cart_id,
    null as contact_id,
    email,
    user_id,
    null as visitor_id,
    case when version = 0 then 'open' else one_of(h, 44, ['open', 'open', 'ordered', 'emptied', 'deleted']) end
        as status,
    'EUR' as currency,
    10 + floor(u(h, 45) * 9000) / 100 as total_amount,
    'https://shop.example/cart/k' || c as cart_url,
    at_day($day0::timestamp, begun_on) as created_at,
    at_day($day0::timestamp, changed_on) as updated_at,
    load_at($day0::timestamp, greatest(0, floor(changed_on))) as loaded_at
from dated
where greatest(0, floor(changed_on)) >= $first and greatest(0, floor(changed_on)) < $end
order by greatest(0, floor(changed_on)), changed_on
"""

_DAYS = {
    # Visitors are born this long before the first day, and come back for less than that.
    "warm_up": 140,
    # The CRM knows of somebody for this long after her first visit.
    "lookback": 270,
    # An event comes at most this many days after it happened, repeated ones included.
    "latest": 5,
    "late": LATE,
    "repeated": REPEATED,
}
_DROPS = [f"drop table bench_{name}" for name in ("visitors", "sessions", "events", "contacts")]
_STATEMENTS = [
    *(word for word in _WORDS.split(";\n") if word.strip()),
    *(
        text.format(**_DAYS) if "{" in text else text
        for text in (
            _VISITORS, _CONTACTS, _SESSIONS, _EVENTS, _RAW_EVENTS, _RAW_EVENT_ITEMS, _RAW_CONTACTS, _RAW_CONSENTS,
            _RAW_ORDERS, _RAW_SUBSCRIPTIONS, _RAW_ENGAGEMENT, _RAW_CARTS,
        )
    ),
    *_DROPS,
]  # fmt: skip
