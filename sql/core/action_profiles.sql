-- materialized: work
-- Whose the actions are: core.actions with their profile.
--
-- One row is a product line of an event, or an event without lines. Key: event_key, item_index. What belongs to nobody
-- has no row. Inputs: core.actions, core.identifiers, core.erased_identifiers.
--
-- The rule of core.events: the login's profile, otherwise the e-mail's, otherwise the browser's (1), also when the login
-- came later than the event (2). Erased people's events are gone (21), rows dated at or after as_of do not exist yet (11).
with actions as (
    select
        event_key,
        visitor_id,
        user_id,
        email,
        source,
        event_name,
        page_location,
        transaction_id,
        currency,
        sku,
        name,
        image_url,
        product_url,
        value,
        item_index,
        quantity,
        price,
        occurred_at
    from core.actions
    where
        occurred_at < :as_of
        and touched_visitor(visitor_id)
),

identifiers as (
    select
        identifier_kind,
        identifier_value,
        profile_id
    from core.identifiers
    where
        profile_id is not null
        and touched_profile(profile_id)
),

erased as (
    select
        identifier_kind,
        identifier_value,
        erased_until
    from core.erased_identifiers
),

matched as (
    select
        actions.event_key,
        actions.visitor_id,
        actions.source,
        actions.event_name,
        actions.page_location,
        actions.transaction_id,
        actions.currency,
        actions.sku,
        actions.name,
        actions.image_url,
        actions.product_url,
        actions.value,
        actions.item_index,
        actions.quantity,
        actions.price,
        by_user.profile_id as user_profile_id,
        by_email.profile_id as email_profile_id,
        case
            when coalesce(actions.occurred_at >= erased_visitor.erased_until, true) then by_visitor.profile_id
        end as visitor_profile_id,
        actions.occurred_at
    from actions
    left join identifiers as by_user
        on
            by_user.identifier_kind = 'user_id'
            and actions.user_id = by_user.identifier_value
    left join identifiers as by_email
        on
            by_email.identifier_kind = 'email'
            and actions.email = by_email.identifier_value
    left join identifiers as by_visitor
        on
            by_visitor.identifier_kind = 'visitor_id'
            and actions.visitor_id = by_visitor.identifier_value
    left join erased as erased_user
        on
            erased_user.identifier_kind = 'user_id'
            and actions.user_id = erased_user.identifier_value
    left join erased as erased_email
        on
            erased_email.identifier_kind = 'email'
            and actions.email = erased_email.identifier_value
    left join erased as erased_visitor
        on
            erased_visitor.identifier_kind = 'visitor_id'
            and actions.visitor_id = erased_visitor.identifier_value
    where
        coalesce(actions.occurred_at >= erased_user.erased_until, true)
        and coalesce(actions.occurred_at >= erased_email.erased_until, true)
)

select
    event_key,
    coalesce(user_profile_id, email_profile_id, visitor_profile_id) as profile_id,
    visitor_id,
    source,
    event_name,
    page_location,
    transaction_id,
    currency,
    sku,
    name,
    image_url,
    product_url,
    case
        when user_profile_id is not null then 'user_id'
        when email_profile_id is not null then 'email'
        else 'visitor_id'
    end as matched_by,
    value,
    item_index,
    quantity,
    price,
    occurred_at
from matched
where coalesce(user_profile_id, email_profile_id, visitor_profile_id) is not null
