-- A row is a row of a source that was left out because it is malformed, with the reason in words.
-- Key: none (the same bad row loaded twice is here twice).
-- Inputs: raw.rejected_rows (what a source could not type) and every raw table with what its staging model leaves out.
-- Rules: superseded versions and deleted records are not malformed and not here; each reason mirrors a condition of the
-- staging model of the same name: change both together (tests/sql/staging/rejected_rows counts them).
with contacts_checked as (
    select
        source,
        'raw.contacts' as table_name,
        contact_id as location,
        case
            when nullif(trim(contact_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and nullif(trim(user_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and nullif(trim(phone, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and not coalesce(regexp_matches(lower(nullif(trim(email, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$'), false) then 'nothing identifies this contact'
        end as reason,
        concat_ws(
            ', ',
            'contact_id=' || contact_id,
            'email=' || email,
            'phone=' || phone,
            'user_id=' || user_id,
            'first_name=' || first_name,
            'last_name=' || last_name
        ) as raw_row,
        loaded_at
    from raw.contacts
),

contact_identifiers_checked as (
    select
        source,
        'raw.contact_identifiers' as table_name,
        contact_id as location,
        case
            when nullif(trim(contact_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no contact id'
            when nullif(trim(value, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no value'
            when coalesce(lower(nullif(trim(kind, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '') not in ('email', 'phone', 'user_id', 'visitor_id', 'merged_contact_id') then 'unknown kind of identifier'
            when lower(nullif(trim(kind, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) = 'email' and not regexp_matches(lower(nullif(trim(value, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$') then 'malformed e-mail'
        end as reason,
        concat_ws(
            ', ',
            'contact_id=' || contact_id,
            'kind=' || kind,
            'value=' || value
        ) as raw_row,
        loaded_at
    from raw.contact_identifiers
),

consents_checked as (
    select
        source,
        'raw.consents' as table_name,
        coalesce(contact_id, 'no contact id') as location,
        case
            when nullif(trim(contact_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and not coalesce(regexp_matches(lower(nullif(trim(email, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$'), false) then 'nothing identifies this person'
            when coalesce(lower(nullif(trim(channel, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '') not in ('email', 'ads') then 'unknown channel'
            when coalesce(lower(nullif(trim(status, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '') not in ('granted', 'denied', 'unknown') then 'unknown status'
        end as reason,
        concat_ws(
            ', ',
            'contact_id=' || contact_id,
            'email=' || email,
            'channel=' || channel,
            'status=' || status,
            'reason=' || reason
        ) as raw_row,
        loaded_at
    from raw.consents
),

suppressions_checked as (
    select
        source,
        'raw.suppressions' as table_name,
        reason as location,
        case
            when coalesce(lower(nullif(trim(kind, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '') not in ('email', 'domain', 'phone', 'contact_id') then 'unknown kind of identifier'
            when nullif(trim(value, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no value'
            when lower(nullif(trim(kind, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) = 'domain' and nullif(ltrim(lower(nullif(trim(value, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '@.'), '') is null then 'no value'
            when lower(nullif(trim(kind, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) = 'email' and not regexp_matches(lower(nullif(trim(value, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$') then 'malformed e-mail'
        end as reason,
        concat_ws(
            ', ',
            'kind=' || kind,
            'value=' || value,
            'channel=' || channel,
            'reason=' || reason
        ) as raw_row,
        loaded_at
    from raw.suppressions
),

orders_checked as (
    select
        source,
        'raw.orders' as table_name,
        coalesce(order_id, transaction_id) as location,
        case
            when nullif(trim(order_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and nullif(trim(transaction_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no order id'
            when ordered_at is null then 'no time of the order'
        end as reason,
        concat_ws(
            ', ',
            'order_id=' || order_id,
            'transaction_id=' || transaction_id,
            'contact_id=' || contact_id,
            'email=' || email,
            'status=' || status
        ) as raw_row,
        loaded_at
    from raw.orders
),

order_items_checked as (
    select
        source,
        'raw.order_items' as table_name,
        coalesce(order_id, '') || '/' || coalesce(line_id, '') as location,
        case
            when nullif(trim(order_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no order id'
            when nullif(trim(sku, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and nullif(trim(name, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'neither sku nor name'
            when quantity < 0 then 'negative quantity'
        end as reason,
        concat_ws(
            ', ',
            'order_id=' || order_id,
            'line_id=' || line_id,
            'sku=' || sku,
            'name=' || name,
            'quantity=' || cast(quantity as varchar),
            'price=' || cast(price as varchar)
        ) as raw_row,
        loaded_at
    from raw.order_items
),

carts_checked as (
    select
        source,
        'raw.carts' as table_name,
        cart_id as location,
        case
            when nullif(trim(cart_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no cart id'
            when created_at is null and updated_at is null then 'no time of the cart'
        end as reason,
        concat_ws(
            ', ',
            'cart_id=' || cart_id,
            'contact_id=' || contact_id,
            'email=' || email,
            'status=' || status
        ) as raw_row,
        loaded_at
    from raw.carts
),

cart_items_checked as (
    select
        source,
        'raw.cart_items' as table_name,
        coalesce(cart_id, '') || '/' || coalesce(line_id, '') as location,
        case
            when nullif(trim(cart_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no cart id'
            when nullif(trim(sku, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and nullif(trim(name, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'neither sku nor name'
            when quantity < 0 then 'negative quantity'
        end as reason,
        concat_ws(
            ', ',
            'cart_id=' || cart_id,
            'line_id=' || line_id,
            'sku=' || sku,
            'name=' || name,
            'quantity=' || cast(quantity as varchar),
            'price=' || cast(price as varchar)
        ) as raw_row,
        loaded_at
    from raw.cart_items
),

subscriptions_checked as (
    select
        source,
        'raw.subscriptions' as table_name,
        subscription_id as location,
        case
            when nullif(trim(subscription_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no subscription id'
            when coalesce(lower(nullif(trim(kind, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), '') not in ('paid', 'email') then 'unknown kind of subscription'
        end as reason,
        concat_ws(
            ', ',
            'subscription_id=' || subscription_id,
            'contact_id=' || contact_id,
            'email=' || email,
            'kind=' || kind,
            'plan=' || plan,
            'status=' || status
        ) as raw_row,
        loaded_at
    from raw.subscriptions
),

engagement_checked as (
    select
        source,
        'raw.engagement' as table_name,
        engagement_id as location,
        case
            when nullif(trim(engagement_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no engagement id'
            when nullif(trim(type, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no type'
            when occurred_at is null then 'no time'
        end as reason,
        concat_ws(
            ', ',
            'engagement_id=' || engagement_id,
            'contact_id=' || contact_id,
            'email=' || email,
            'type=' || type,
            'occurred_at=' || cast(occurred_at as varchar)
        ) as raw_row,
        loaded_at
    from raw.engagement
),

events_checked as (
    select
        source,
        'raw.events' as table_name,
        event_key as location,
        case
            when nullif(trim(event_key, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no event key'
            when nullif(trim(visitor_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no visitor id'
            when nullif(trim(event_name, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no event name'
            when occurred_at is null then 'no time'
            when occurred_at < timestamp '2000-01-01 00:00:00' then 'clock before the year 2000'
        end as reason,
        concat_ws(
            ', ',
            'event_key=' || event_key,
            'event_name=' || event_name,
            'visitor_id=' || visitor_id,
            'user_id=' || user_id,
            'source_file=' || source_file,
            'occurred_at=' || cast(occurred_at as varchar)
        ) as raw_row,
        loaded_at
    from raw.events
),

event_items_checked as (
    select
        source,
        'raw.event_items' as table_name,
        coalesce(event_key, '') || '/' || coalesce(cast(item_index as varchar), '') as location,
        case
            when nullif(trim(event_key, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'no event key'
            when nullif(trim(sku, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null and nullif(trim(name, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') is null then 'neither sku nor name'
            when quantity < 0 then 'negative quantity'
        end as reason,
        concat_ws(
            ', ',
            'event_key=' || event_key,
            'sku=' || sku,
            'name=' || name,
            'item_index=' || cast(item_index as varchar),
            'quantity=' || cast(quantity as varchar),
            'price=' || cast(price as varchar)
        ) as raw_row,
        loaded_at
    from raw.event_items
),

rejected as (
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from raw.rejected_rows
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from contacts_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from contact_identifiers_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from consents_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from suppressions_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from orders_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from order_items_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from carts_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from cart_items_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from subscriptions_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from engagement_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from events_checked
    where reason is not null
    union all
    select
        source,
        table_name,
        location,
        reason,
        raw_row,
        loaded_at
    from event_items_checked
    where reason is not null
)

select
    source,
    table_name,
    location,
    reason,
    raw_row,
    loaded_at
from rejected
