-- materialized: work
-- What each source says about an order, and which real order it means.
--
-- One row is one record of an order in one source: an order of a CRM, shop or file, or a purchase event of the web.
-- Key: record_key. Inputs: staging.orders, core.record_profiles, core.action_profiles, core.identifiers,
-- core.clashing_numbers.
-- core.orders makes one row per real order of it; core.cart_closings needs each source's own clock.
--
-- Rules a marketer asks about:
--   * Records with the same transaction id are one order, whatever the source (rule 5).
--   * A record without transaction id is the same order as a record of another source with the same profile and amount
--     within 10 minutes, unless they tell two currencies or that order already has a record of its own source. Each finds
--     one partner at most, the nearest. Otherwise it is an order of its own.
--   * '(not set)', '<Other>' and blanks are no transaction id; nor is a number under which one source knows two people or
--     two sources know two orders, or that was seen on more browsers than an order can be.
--   * profile_rank says how sure the person is: 1 by CRM id, login or e-mail; 2 by a browser or phone that has met
--     one person; 3 by a browser or phone alone.
--   * A negative amount is money given back, no order: such a record is not here, and the order it belongs to stays as it
--     was (a return counts, rule 10). One that says it is cancelled or failed speaks for the order of its number.
--   * A record of nobody is here when a record of somebody has its number: it may tell that the order was cancelled.
--
-- All records with one number are about people who are built together.
with shop_orders as (
    select
        orders.source || ':' || orders.order_id as record_key,
        orders.source,
        orders.order_id,
        case
            when lower(trim(orders.transaction_id)) not in ('', '(not set)', '<other>')
                then trim(orders.transaction_id)
        end as transaction_id,
        orders.contact_id,
        orders.user_id,
        orders.email,
        orders.visitor_id,
        orders.phone,
        record_profiles.profile_id,
        record_profiles.matched_by,
        orders.status,
        orders.currency,
        orders.total_amount,
        coalesce(orders.is_test, false) as is_test,
        false as is_web,
        orders.ordered_at,
        orders.updated_at
    from staging.orders as orders
    left join core.record_profiles as record_profiles
        on
            record_profiles.record_kind = 'order'
            and orders.source = record_profiles.source
            and orders.order_id = record_profiles.record_id
    where
        orders.ordered_at < :as_of
        and (coalesce(orders.total_amount >= 0, true) or orders.status in ('cancelled', 'failed'))
),

-- Distinct: a purchase has a row per product.
purchases as (
    select distinct
        source || ':' || event_key as record_key,
        source,
        event_key as order_id,
        case
            when lower(trim(transaction_id)) not in ('', '(not set)', '<other>') then trim(transaction_id)
        end as transaction_id,
        cast(null as text) as contact_id,
        cast(null as text) as user_id,
        cast(null as text) as email,
        visitor_id,
        cast(null as text) as phone,
        profile_id,
        matched_by,
        'placed' as status,
        currency,
        value as total_amount,
        false as is_test,
        true as is_web,
        occurred_at as ordered_at,
        occurred_at as updated_at
    from core.action_profiles
    where
        event_name = 'purchase'
        and coalesce(value >= 0, true)
),

-- Union without all: each number once.
known_numbers as (
    select transaction_id
    from shop_orders
    where profile_id is not null
    union distinct
    select transaction_id
    from purchases
),

orders_of_nobody as (
    select shop_orders.*
    from shop_orders
    inner join known_numbers
        on shop_orders.transaction_id = known_numbers.transaction_id
    where shop_orders.profile_id is null
),

records as (
    select * from shop_orders
    where profile_id is not null
    union all
    select * from purchases
    union all
    select * from orders_of_nobody
),

weak_identifiers as (
    select
        identifier_kind,
        identifier_value,
        state
    from core.identifiers
    where
        identifier_kind in ('visitor_id', 'phone')
        and touched_profile(profile_id)
),

numbered as (
    select
        records.record_key,
        records.source,
        records.order_id,
        records.transaction_id,
        records.contact_id,
        records.user_id,
        records.email,
        records.visitor_id,
        records.phone,
        records.profile_id,
        case
            when records.matched_by in ('contact_id', 'user_id', 'email') then 1
            when identifiers.state = 'joined' then 2
            else 3
        end as profile_rank,
        records.status,
        records.currency,
        records.total_amount,
        records.is_test,
        records.is_web,
        records.ordered_at,
        records.updated_at
    from records
    left join weak_identifiers as identifiers
        on
            records.matched_by = identifiers.identifier_kind
            and case records.matched_by when 'visitor_id' then records.visitor_id when 'phone' then records.phone end
            = identifiers.identifier_value
),

numbers_by_source as (
    select
        transaction_id,
        count(distinct case when profile_rank = 1 then profile_id end) as people,
        count(distinct visitor_id) as browsers
    from numbered
    where transaction_id is not null
    group by source, transaction_id
),

reused_numbers as (
    -- Union without all: found once is enough.
    select transaction_id
    from numbers_by_source
    where people > 1 or browsers > :quarantine_above
    union distinct
    select transaction_id
    from core.clashing_numbers
),

grouped as (
    select
        numbered.record_key,
        coalesce(
            case when reused_numbers.transaction_id is null then numbered.transaction_id end, numbered.record_key
        ) as group_key,
        numbered.source,
        numbered.order_id,
        case when reused_numbers.transaction_id is null then numbered.transaction_id end as transaction_id,
        numbered.contact_id,
        numbered.user_id,
        numbered.email,
        numbered.visitor_id,
        numbered.phone,
        numbered.profile_id,
        numbered.profile_rank,
        numbered.status,
        numbered.currency,
        numbered.total_amount,
        cast(round(numbered.total_amount * 1000) as bigint) as amount_in_thousandths,
        numbered.is_test,
        numbered.is_web,
        numbered.ordered_at,
        numbered.updated_at
    from numbered
    left join reused_numbers
        on numbered.transaction_id = reused_numbers.transaction_id
),

group_sources as (
    -- Distinct: an order reported twice by a source has that source once.
    select distinct
        group_key,
        source
    from grouped
),

candidates as (
    -- Towards the record with a transaction id; without one on either side, from the web to the shop.
    select
        strays.record_key,
        strays.source,
        partners.group_key as partner_key,
        abs(epoch(strays.ordered_at) - epoch(partners.ordered_at)) as seconds_apart
    from grouped as strays
    inner join grouped as partners
        on
            strays.profile_id = partners.profile_id
            and strays.source <> partners.source
            and coalesce(strays.currency = partners.currency, true)
            and strays.amount_in_thousandths = partners.amount_in_thousandths
            and partners.ordered_at >= strays.ordered_at - interval '10 minutes'
            and partners.ordered_at <= strays.ordered_at + interval '10 minutes'
            and (
                partners.transaction_id is not null
                or (strays.is_web and not partners.is_web)
                or (strays.is_web = partners.is_web and strays.source > partners.source)
            )
    left join group_sources as already_there
        on partners.group_key = already_there.group_key and strays.source = already_there.source
    where strays.transaction_id is null and already_there.group_key is null
),

ranked as (
    select
        record_key,
        partner_key,
        row_number() over (
            partition by record_key
            order by seconds_apart asc, partner_key asc
        ) as choice_of_record,
        row_number() over (
            partition by partner_key, source
            order by seconds_apart asc, record_key asc
        ) as choice_of_partner
    from candidates
),

partnered as (
    select
        record_key,
        partner_key
    from ranked
    where choice_of_record = 1 and choice_of_partner = 1
)

select
    grouped.record_key,
    -- Two steps: a web purchase may lean on a shop's record that leans on another shop's.
    coalesce(partners_of_partners.partner_key, partnered.partner_key, grouped.group_key) as order_key,
    grouped.source,
    grouped.order_id,
    grouped.transaction_id,
    grouped.contact_id,
    grouped.user_id,
    grouped.email,
    grouped.visitor_id,
    grouped.phone,
    grouped.profile_id,
    grouped.status,
    grouped.currency,
    grouped.profile_rank,
    grouped.total_amount,
    grouped.is_test,
    grouped.is_web,
    grouped.ordered_at,
    grouped.updated_at
from grouped
left join partnered
    on grouped.record_key = partnered.record_key
left join partnered as partners_of_partners
    on partnered.partner_key = partners_of_partners.record_key
