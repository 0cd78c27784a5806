-- A row is two identifiers that were seen together on a record (or on the records of one order), or, with node_b null,
-- an identifier that was seen at all.
-- Key: node_a, node_b.
-- Inputs: core.event_identities, core.clashing_numbers and every other staging table that carries identifiers.
-- materialized: work
-- A node is an identifier as one text: 1:<source>:<contact id>, 2:<login>, 3:<e-mail>, 4:<phone>, 5:<browser>. The text
-- order of nodes is the order of kinds, strong before weak; node_a is always the smaller one.
-- Rules: only records dated before as_of (11). Ids merged in a CRM are linked to the survivor (5). A phone is an identifier
-- only when its country is known (it starts with +). Records with one transaction id are one order and share their
-- identifiers (5), unless the number is none: it says '(not set)', one source knows two people under it, two sources know
-- two orders under it (core.clashing_numbers), or it was seen on more browsers than an order can be; a login or CRM id that
-- would meet more than :quarantine_above others this way (a till, a guest account) is not linked by its orders. An unknown
-- time counts as 1970.
with event_sets as (
    select
        source,
        user_id,
        email,
        visitor_id,
        transaction_id,
        first_seen_at,
        last_seen_at
    from core.event_identities
    where touched_visitor(visitor_id)
),

contact_records as (
    select
        source,
        contact_id,
        user_id,
        email,
        phone,
        coalesce(created_at, updated_at, timestamp '1970-01-01 00:00:00') as first_seen_at,
        case
            when updated_at < :as_of then updated_at
            else coalesce(created_at, timestamp '1970-01-01 00:00:00')
        end as last_seen_at
    from staging.contacts
    where touched_node(coalesce('1:' || source || ':' || contact_id, '2:' || user_id, '3:' || email, '4:' || phone))
),

contact_identifiers as (
    select
        held.source,
        held.contact_id,
        held.kind,
        held.value,
        coalesce(contact_records.first_seen_at, held.updated_at, timestamp '1970-01-01 00:00:00') as first_seen_at,
        coalesce(contact_records.last_seen_at, held.updated_at, timestamp '1970-01-01 00:00:00') as last_seen_at
    from staging.contact_identifiers as held
    left join contact_records
        on
            held.source = contact_records.source
            and held.contact_id = contact_records.contact_id
    where
        held.is_current
        and touched_node('1:' || held.source || ':' || held.contact_id)
),

records as (
    select
        source,
        null as contact_id,
        null as merged_contact_id,
        user_id,
        email,
        null as phone,
        visitor_id,
        transaction_id,
        first_seen_at,
        last_seen_at
    from event_sets
    union all
    select
        source,
        contact_id,
        null as merged_contact_id,
        user_id,
        email,
        phone,
        null as visitor_id,
        null as transaction_id,
        first_seen_at,
        last_seen_at
    from contact_records
    where first_seen_at < :as_of
    union all
    select
        source,
        contact_id,
        case when kind = 'merged_contact_id' then value end as merged_contact_id,
        case when kind = 'user_id' then value end as user_id,
        case when kind = 'email' then value end as email,
        case when kind = 'phone' then value end as phone,
        case when kind = 'visitor_id' then value end as visitor_id,
        null as transaction_id,
        first_seen_at,
        last_seen_at
    from contact_identifiers
    where first_seen_at < :as_of
    union all
    select
        source,
        contact_id,
        null as merged_contact_id,
        user_id,
        email,
        phone,
        visitor_id,
        case when lower(transaction_id) not in ('(not set)', '<other>') then transaction_id end as transaction_id,
        ordered_at as first_seen_at,
        ordered_at as last_seen_at
    from staging.orders
    where
        ordered_at < :as_of
        and touched_node(
            coalesce(
                '1:' || source || ':' || contact_id,
                '2:' || user_id,
                '3:' || email,
                '5:' || visitor_id,
                case when phone like '+%' then '4:' || phone end,
                '6:' || transaction_id
            )
        )
    union all
    select
        source,
        contact_id,
        null as merged_contact_id,
        user_id,
        email,
        null as phone,
        visitor_id,
        null as transaction_id,
        coalesce(created_at, updated_at) as first_seen_at,
        coalesce(created_at, updated_at) as last_seen_at
    from staging.carts
    where
        coalesce(created_at, updated_at) < :as_of
        and touched_node(
            coalesce('1:' || source || ':' || contact_id, '2:' || user_id, '3:' || email, '5:' || visitor_id)
        )
    union all
    select
        source,
        contact_id,
        null as merged_contact_id,
        user_id,
        email,
        null as phone,
        null as visitor_id,
        null as transaction_id,
        coalesce(started_at, updated_at, timestamp '1970-01-01 00:00:00') as first_seen_at,
        coalesce(started_at, updated_at, timestamp '1970-01-01 00:00:00') as last_seen_at
    from staging.subscriptions
    where
        coalesce(started_at, updated_at, timestamp '1970-01-01 00:00:00') < :as_of
        and touched_node(coalesce('1:' || source || ':' || contact_id, '2:' || user_id, '3:' || email))
    union all
    select
        source,
        contact_id,
        null as merged_contact_id,
        null as user_id,
        email,
        null as phone,
        visitor_id,
        null as transaction_id,
        occurred_at as first_seen_at,
        occurred_at as last_seen_at
    from staging.engagement
    where
        occurred_at < :as_of
        and touched_node(coalesce('1:' || source || ':' || contact_id, '3:' || email, '5:' || visitor_id))
    union all
    select
        source,
        contact_id,
        null as merged_contact_id,
        null as user_id,
        email,
        null as phone,
        null as visitor_id,
        null as transaction_id,
        coalesce(changed_at, timestamp '1970-01-01 00:00:00') as first_seen_at,
        coalesce(changed_at, timestamp '1970-01-01 00:00:00') as last_seen_at
    from staging.consents
    where
        coalesce(changed_at, timestamp '1970-01-01 00:00:00') < :as_of
        and touched_node(coalesce('1:' || source || ':' || contact_id, '3:' || email))
),

record_nodes as (
    select
        case when transaction_id is not null then source end as order_source,
        transaction_id,
        '1:' || source || ':' || contact_id as contact_node,
        '1:' || source || ':' || merged_contact_id as merged_node,
        '2:' || user_id as user_node,
        '3:' || email as email_node,
        case when phone like '+%' then '4:' || phone end as phone_node,
        '5:' || visitor_id as visitor_node,
        first_seen_at,
        last_seen_at
    from records
),

combinations as (
    select
        order_source,
        transaction_id,
        contact_node,
        merged_node,
        user_node,
        email_node,
        phone_node,
        visitor_node,
        min(first_seen_at) as first_seen_at,
        max(last_seen_at) as last_seen_at
    from record_nodes
    group by
        order_source,
        transaction_id,
        contact_node,
        merged_node,
        user_node,
        email_node,
        phone_node,
        visitor_node
),

-- Order numbers that are none.
not_one_order as (
    select transaction_id
    from combinations
    where transaction_id is not null
    group by transaction_id, order_source
    having
        count(distinct contact_node) > 1
        or count(distinct user_node) > 1
        or count(distinct email_node) > 1
        or count(distinct visitor_node) > :quarantine_above
    union all
    select transaction_id
    from core.clashing_numbers
),

order_combinations as (
    select
        combinations.transaction_id,
        combinations.contact_node,
        combinations.user_node,
        combinations.email_node,
        combinations.phone_node,
        combinations.visitor_node,
        combinations.first_seen_at,
        combinations.last_seen_at
    from combinations
    left join not_one_order
        on combinations.transaction_id = not_one_order.transaction_id
    where
        combinations.transaction_id is not null
        and not_one_order.transaction_id is null
),

order_nodes as (
    select
        transaction_id,
        contact_node as node,
        first_seen_at,
        last_seen_at
    from order_combinations
    where contact_node is not null
    union all
    select
        transaction_id,
        user_node as node,
        first_seen_at,
        last_seen_at
    from order_combinations
    where user_node is not null
    union all
    select
        transaction_id,
        email_node as node,
        first_seen_at,
        last_seen_at
    from order_combinations
    where email_node is not null
    union all
    select
        transaction_id,
        phone_node as node,
        first_seen_at,
        last_seen_at
    from order_combinations
    where phone_node is not null
    union all
    select
        transaction_id,
        visitor_node as node,
        first_seen_at,
        last_seen_at
    from order_combinations
    where visitor_node is not null
),

order_links as (
    select
        one.node as node_a,
        other.node as node_b,
        least(one.first_seen_at, other.first_seen_at) as first_seen_at,
        greatest(one.last_seen_at, other.last_seen_at) as last_seen_at
    from order_nodes as one
    inner join order_nodes as other
        on
            one.transaction_id = other.transaction_id
            and one.node < other.node
),

order_partners as (
    select
        node_a as node,
        node_b as partner
    from order_links
    where node_b < '4'
    union all
    select
        node_b as node,
        node_a as partner
    from order_links
    where node_b < '4'
),

-- Tills and guest accounts: an order says nothing about who they are.
busy_accounts as (
    select node
    from order_partners
    where node < '3'
    group by node
    having count(distinct partner) > :quarantine_above
),

links as (
    select
        contact_node as node_a,
        null as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    union all
    select
        merged_node as node_a,
        null as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    union all
    select
        user_node as node_a,
        null as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    union all
    select
        email_node as node_a,
        null as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    union all
    select
        phone_node as node_a,
        null as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    union all
    select
        visitor_node as node_a,
        null as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    union all
    select
        least(contact_node, merged_node) as node_a,
        greatest(contact_node, merged_node) as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where contact_node is distinct from merged_node and contact_node is not null and merged_node is not null
    union all
    select
        contact_node as node_a,
        user_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where user_node is not null
    union all
    select
        contact_node as node_a,
        email_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where email_node is not null
    union all
    select
        contact_node as node_a,
        phone_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where phone_node is not null
    union all
    select
        contact_node as node_a,
        visitor_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where visitor_node is not null
    union all
    select
        user_node as node_a,
        email_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where email_node is not null
    union all
    select
        user_node as node_a,
        phone_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where phone_node is not null
    union all
    select
        user_node as node_a,
        visitor_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where visitor_node is not null
    union all
    select
        email_node as node_a,
        phone_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where phone_node is not null
    union all
    select
        email_node as node_a,
        visitor_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where visitor_node is not null
    union all
    select
        phone_node as node_a,
        visitor_node as node_b,
        first_seen_at,
        last_seen_at
    from combinations
    where visitor_node is not null
    union all
    select
        order_links.node_a,
        order_links.node_b,
        order_links.first_seen_at,
        order_links.last_seen_at
    from order_links
    left join busy_accounts as busy_one
        on order_links.node_a = busy_one.node
    left join busy_accounts as busy_other
        on order_links.node_b = busy_other.node
    where
        busy_one.node is null
        and busy_other.node is null
)

select
    node_a,
    node_b,
    min(first_seen_at) as first_seen_at,
    max(last_seen_at) as last_seen_at
from links
where node_a is not null
group by node_a, node_b
