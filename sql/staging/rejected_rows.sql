-- A row is a row of a source that was left out because it is malformed, with the reason in words.
-- Key: none (the same bad row loaded twice is here twice).
-- materialized: incremental by load
-- Inputs: raw.rejected_rows (what a source could not type) and every raw table with what its staging model leaves out.
-- Rules: superseded versions and deleted records are not malformed and not here, nor are events without a visitor id
-- (somebody who refused is not written down a second time, 6); each reason mirrors a condition of the
-- staging model of the same name: change both together (tests/sql/staging/rejected_rows counts them).
with contacts_checked as (
    select
        source,
        'raw.contacts' as table_name,
        contact_id as location,
        case
            when
                tidy(contact_id) is null
                and known(tidy(user_id)) is null
                and tidy(phone) is null
                and not coalesce(is_email(lower(tidy(email))), false)
                then 'nothing identifies this contact'
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
            when tidy(contact_id) is null then 'no contact id'
            when tidy(value) is null then 'no value'
            when lower(tidy(kind)) = 'user_id' and known(tidy(value)) is null then 'no value'
            when
                coalesce(lower(tidy(kind)), '')
                not in ('email', 'phone', 'user_id', 'visitor_id', 'merged_contact_id')
                then 'unknown kind of identifier'
            when lower(tidy(kind)) = 'email' and not is_email(lower(tidy(value))) then 'malformed e-mail'
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
            when
                tidy(contact_id) is null and not coalesce(is_email(lower(tidy(email))), false)
                then 'nothing identifies this person'
            when coalesce(lower(tidy(channel)), '') not in ('email', 'ads') then 'unknown channel'
            when coalesce(lower(tidy(status)), '') not in ('granted', 'denied', 'unknown') then 'unknown status'
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
            when
                coalesce(lower(tidy(kind)), '') not in ('email', 'domain', 'phone', 'contact_id')
                then 'unknown kind of identifier'
            when tidy(value) is null then 'no value'
            when lower(tidy(kind)) = 'domain' and nullif(ltrim(lower(tidy(value)), '@.'), '') is null then 'no value'
            when lower(tidy(kind)) = 'email' and not is_email(lower(tidy(value))) then 'malformed e-mail'
            when lower(tidy(kind)) = 'phone' and tidy(value) not like '+%' then 'phone number without its country'
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
            when tidy(order_id) is null and known(tidy(transaction_id)) is null then 'no order id'
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
            when tidy(order_id) is null then 'no order id'
            when tidy(sku) is null and tidy(name) is null then 'neither sku nor name'
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
            when tidy(cart_id) is null then 'no cart id'
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
            when tidy(cart_id) is null then 'no cart id'
            when tidy(sku) is null and tidy(name) is null then 'neither sku nor name'
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
            when tidy(subscription_id) is null then 'no subscription id'
            when coalesce(lower(tidy(kind)), '') not in ('paid', 'email') then 'unknown kind of subscription'
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
            when tidy(engagement_id) is null then 'no engagement id'
            when tidy(type) is null then 'no type'
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
            when tidy(event_key) is null then 'no event key'
            when tidy(event_name) is null then 'no event name'
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
    where tidy(visitor_id) is not null
),

event_items_checked as (
    select
        source,
        'raw.event_items' as table_name,
        coalesce(event_key, '') || '/' || coalesce(cast(item_index as varchar), '') as location,
        case
            when tidy(event_key) is null then 'no event key'
            when tidy(sku) is null and tidy(name) is null then 'neither sku nor name'
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
