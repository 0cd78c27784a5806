-- A row is an identifier on a record of a source: what core.islands ties together.
-- Key: none. `record` is any text that is the same for all identifiers of a record; `node` as in core.identifier_links,
-- and 6:<transaction id> besides.
-- materialized: view
-- Inputs: core.event_identities and every staging table that carries identifiers.
-- Rules: wider than identity on purpose. What an identifier is not believed to say any more (an address a contact gave up,
-- a transaction id of many orders) still ties here: it may matter to how its neighbours are judged. An event's record is
-- its browser, and a browser that was seen with nothing else is not here.
with event_nodes as (
    select
        '5:' || visitor_id as record,
        '5:' || visitor_id as visitor_node,
        '2:' || user_id as user_node,
        '3:' || email as email_node,
        '6:' || transaction_id as transaction_node
    from core.event_identities
    where
        user_id is not null
        or email is not null
        or transaction_id is not null
),

records as (
    select
        'contact:' || source || ':' || record_key as record,
        '1:' || source || ':' || contact_id as contact_node,
        '2:' || user_id as user_node,
        '3:' || email as email_node,
        case when phone like '+%' then '4:' || phone end as phone_node,
        cast(null as text) as visitor_node,
        cast(null as text) as transaction_node
    from staging.contacts
    union all
    select
        '1:' || source || ':' || contact_id as record,
        '1:' || source || ':' || contact_id as contact_node,
        case
            when kind = 'user_id' then '2:' || value
            when kind = 'merged_contact_id' then '1:' || source || ':' || value
        end as user_node,
        case when kind = 'email' then '3:' || value end as email_node,
        case when kind = 'phone' and value like '+%' then '4:' || value end as phone_node,
        case when kind = 'visitor_id' then '5:' || value end as visitor_node,
        cast(null as text) as transaction_node
    from staging.contact_identifiers
    union all
    select
        'order:' || source || ':' || order_id as record,
        '1:' || source || ':' || contact_id as contact_node,
        '2:' || user_id as user_node,
        '3:' || email as email_node,
        case when phone like '+%' then '4:' || phone end as phone_node,
        '5:' || visitor_id as visitor_node,
        '6:' || transaction_id as transaction_node
    from staging.orders
    union all
    select
        'cart:' || source || ':' || cart_id as record,
        '1:' || source || ':' || contact_id as contact_node,
        '2:' || user_id as user_node,
        '3:' || email as email_node,
        cast(null as text) as phone_node,
        '5:' || visitor_id as visitor_node,
        cast(null as text) as transaction_node
    from staging.carts
    union all
    select
        'subscription:' || source || ':' || subscription_id as record,
        '1:' || source || ':' || contact_id as contact_node,
        '2:' || user_id as user_node,
        '3:' || email as email_node,
        cast(null as text) as phone_node,
        cast(null as text) as visitor_node,
        cast(null as text) as transaction_node
    from staging.subscriptions
    union all
    select
        'engagement:' || source || ':' || engagement_id as record,
        '1:' || source || ':' || contact_id as contact_node,
        cast(null as text) as user_node,
        '3:' || email as email_node,
        cast(null as text) as phone_node,
        '5:' || visitor_id as visitor_node,
        cast(null as text) as transaction_node
    from staging.engagement
    union all
    select
        'consent:' || source || ':' || coalesce(contact_id, '') || ':' || coalesce(email, '') as record,
        '1:' || source || ':' || contact_id as contact_node,
        cast(null as text) as user_node,
        '3:' || email as email_node,
        cast(null as text) as phone_node,
        cast(null as text) as visitor_node,
        cast(null as text) as transaction_node
    from staging.consents
    union all
    select
        'suppression:' || kind || ':' || value as record,
        case when kind = 'contact_id' then '1:' || value end as contact_node,
        case when kind = 'contact_id' then '1:' || source || ':' || value end as user_node,
        case when kind = 'email' then '3:' || value end as email_node,
        case when kind = 'phone' then '4:' || value end as phone_node,
        cast(null as text) as visitor_node,
        cast(null as text) as transaction_node
    from staging.suppressions
    where kind in ('contact_id', 'email', 'phone')
)

select
    record,
    visitor_node as node
from event_nodes
union all
select
    record,
    user_node as node
from event_nodes
where user_node is not null
union all
select
    record,
    email_node as node
from event_nodes
where email_node is not null
union all
select
    record,
    transaction_node as node
from event_nodes
where transaction_node is not null
union all
select
    record,
    contact_node as node
from records
where contact_node is not null
union all
select
    record,
    user_node as node
from records
where user_node is not null
union all
select
    record,
    email_node as node
from records
where email_node is not null
union all
select
    record,
    phone_node as node
from records
where phone_node is not null
union all
select
    record,
    visitor_node as node
from records
where visitor_node is not null
union all
select
    record,
    transaction_node as node
from records
where transaction_node is not null
