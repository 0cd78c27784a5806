-- A row is a record of a source (contact, order, cart, subscription, e-mail or ad touch) and the profile it belongs to.
-- Key: record_kind, source, record_id. A record that belongs to nobody has no row.
-- materialized: work
-- Inputs: staging.contacts, staging.orders, staging.carts, staging.subscriptions, staging.engagement, core.identifiers,
-- core.erased_identifiers.
-- Rules: the first strong identifier with a profile, in the order contact_id, user_id, email; otherwise the browser's
-- profile, otherwise the phone's (1). `matched_by` says which. A record that carries a strong identifier erased at its
-- time is gone, an erased browser or phone says nothing (21). Rows dated at or after as_of do not exist yet (11).
-- A contact is dated by its version: a person who came back after an erasure is known by what her CRM says since then.
with records as (
    select
        'contact' as record_kind,
        source,
        record_key as record_id,
        source || ':' || contact_id as contact_id,
        user_id,
        email,
        null as visitor_id,
        phone,
        case
            when updated_at < :as_of then updated_at
            else coalesce(created_at, timestamp '1970-01-01 00:00:00')
        end as dated_at
    from staging.contacts
    where touched_node(coalesce('1:' || source || ':' || contact_id, '2:' || user_id, '3:' || email, '4:' || phone))
    union all
    select
        'order' as record_kind,
        source,
        order_id as record_id,
        source || ':' || contact_id as contact_id,
        user_id,
        email,
        visitor_id,
        phone,
        ordered_at as dated_at
    from staging.orders
    where
        touched_node(
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
        'cart' as record_kind,
        source,
        cart_id as record_id,
        source || ':' || contact_id as contact_id,
        user_id,
        email,
        visitor_id,
        null as phone,
        coalesce(created_at, updated_at) as dated_at
    from staging.carts
    where touched_node(coalesce('1:' || source || ':' || contact_id, '2:' || user_id, '3:' || email, '5:' || visitor_id))
    union all
    select
        'subscription' as record_kind,
        source,
        subscription_id as record_id,
        source || ':' || contact_id as contact_id,
        user_id,
        email,
        null as visitor_id,
        null as phone,
        coalesce(started_at, updated_at, timestamp '1970-01-01 00:00:00') as dated_at
    from staging.subscriptions
    where touched_node(coalesce('1:' || source || ':' || contact_id, '2:' || user_id, '3:' || email))
    union all
    select
        'engagement' as record_kind,
        source,
        engagement_id as record_id,
        source || ':' || contact_id as contact_id,
        null as user_id,
        email,
        visitor_id,
        null as phone,
        occurred_at as dated_at
    from staging.engagement
    where touched_node(coalesce('1:' || source || ':' || contact_id, '3:' || email, '5:' || visitor_id))
),

identifiers as (
    select
        identifier_kind,
        identifier_value,
        profile_id
    from core.identifiers
    where
        profile_id is not null
        and touched_node(node)
),

erased as (
    select
        identifier_kind,
        identifier_value,
        erased_until
    from core.erased_identifiers
    where touched_node(node)
),

matched as (
    select
        records.record_kind,
        records.source,
        records.record_id,
        by_contact.profile_id as contact_profile_id,
        by_user.profile_id as user_profile_id,
        by_email.profile_id as email_profile_id,
        case
            when coalesce(records.dated_at >= erased_visitor.erased_until, true) then by_visitor.profile_id
        end as visitor_profile_id,
        case
            when coalesce(records.dated_at >= erased_phone.erased_until, true) then by_phone.profile_id
        end as phone_profile_id,
        records.dated_at
    from records
    left join identifiers as by_contact
        on
            by_contact.identifier_kind = 'contact_id'
            and records.contact_id = by_contact.identifier_value
    left join identifiers as by_user
        on
            by_user.identifier_kind = 'user_id'
            and records.user_id = by_user.identifier_value
    left join identifiers as by_email
        on
            by_email.identifier_kind = 'email'
            and records.email = by_email.identifier_value
    left join identifiers as by_visitor
        on
            by_visitor.identifier_kind = 'visitor_id'
            and records.visitor_id = by_visitor.identifier_value
    left join identifiers as by_phone
        on
            by_phone.identifier_kind = 'phone'
            and records.phone = by_phone.identifier_value
    left join erased as erased_contact
        on
            erased_contact.identifier_kind = 'contact_id'
            and records.contact_id = erased_contact.identifier_value
    left join erased as erased_user
        on
            erased_user.identifier_kind = 'user_id'
            and records.user_id = erased_user.identifier_value
    left join erased as erased_email
        on
            erased_email.identifier_kind = 'email'
            and records.email = erased_email.identifier_value
    left join erased as erased_visitor
        on
            erased_visitor.identifier_kind = 'visitor_id'
            and records.visitor_id = erased_visitor.identifier_value
    left join erased as erased_phone
        on
            erased_phone.identifier_kind = 'phone'
            and records.phone = erased_phone.identifier_value
    where
        records.dated_at < :as_of
        and coalesce(records.dated_at >= erased_contact.erased_until, true)
        and coalesce(records.dated_at >= erased_user.erased_until, true)
        and coalesce(records.dated_at >= erased_email.erased_until, true)
),

answers as (
    select
        record_kind,
        source,
        record_id,
        coalesce(
            contact_profile_id,
            user_profile_id,
            email_profile_id,
            visitor_profile_id,
            phone_profile_id
        ) as profile_id,
        case
            when contact_profile_id is not null then 'contact_id'
            when user_profile_id is not null then 'user_id'
            when email_profile_id is not null then 'email'
            when visitor_profile_id is not null then 'visitor_id'
            when phone_profile_id is not null then 'phone'
        end as matched_by,
        dated_at
    from matched
)

select
    record_kind,
    source,
    record_id,
    profile_id,
    matched_by,
    nullif(dated_at, timestamp '1970-01-01 00:00:00') as dated_at
from answers
where profile_id is not null
