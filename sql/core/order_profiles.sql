-- materialized: incremental by profile_id
-- Whose carts and visits an order answers.
--
-- One row is an order and a profile. Key: order_key, profile_id. Inputs: core.order_records, core.identifiers.
--
-- Always the person who ordered. On a shared browser also the browser's own profile, since the cart may have been
-- filled before she logged in (rule 5); the same for a shared phone.
with records as (
    -- A record of nobody stays nobody's, even if its e-mail means somebody by now (erased people).
    select
        order_key,
        profile_id,
        source,
        contact_id,
        user_id,
        email,
        visitor_id,
        phone
    from core.order_records
    where profile_id is not null
),

identifiers as (
    select
        identifier_kind,
        identifier_value,
        profile_id
    from core.identifiers
    where profile_id is not null
),

carried_identifiers as (
    select
        order_key,
        'contact_id' as identifier_kind,
        source || ':' || contact_id as identifier_value
    from records
    union all
    select
        order_key,
        'user_id' as identifier_kind,
        user_id as identifier_value
    from records
    union all
    select
        order_key,
        'email' as identifier_kind,
        email as identifier_value
    from records
    union all
    select
        order_key,
        'visitor_id' as identifier_kind,
        visitor_id as identifier_value
    from records
    union all
    select
        order_key,
        'phone' as identifier_kind,
        phone as identifier_value
    from records
),

answered as (
    select
        order_key,
        profile_id
    from records
    union all
    select
        carried_identifiers.order_key,
        identifiers.profile_id
    from carried_identifiers
    inner join identifiers
        on
            carried_identifiers.identifier_kind = identifiers.identifier_kind
            and carried_identifiers.identifier_value = identifiers.identifier_value
)

-- Distinct: most identifiers of an order lead to the same person.
select distinct
    order_key,
    profile_id
from answered
