-- A row is a cart as a CRM or a shop holds it now; deleted ones are left out.
-- Key: source, cart_id.
-- Inputs: raw.carts.
-- Rules: the newest version of a record is the truth (11); a malformed e-mail is no e-mail (4).
with trimmed as (
    select
        nullif(trim(source, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as source,
        nullif(trim(cart_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as cart_id,
        nullif(trim(contact_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as contact_id,
        lower(nullif(trim(email, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as email,
        nullif(trim(user_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as user_id,
        nullif(trim(visitor_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as visitor_id,
        coalesce(lower(nullif(trim(status, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')), 'open') as status,
        upper(nullif(trim(currency, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as currency,
        total_amount,
        nullif(trim(cart_url, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as cart_url,
        created_at,
        updated_at,
        loaded_at
    from raw.carts
),

newest as (
    select
        source,
        cart_id,
        contact_id,
        case when regexp_matches(email, '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$') then email end as email,
        user_id,
        visitor_id,
        status,
        currency,
        total_amount,
        cart_url,
        created_at,
        updated_at,
        loaded_at
    from trimmed
    where
        cart_id is not null
        and (created_at is not null or updated_at is not null)
    qualify
        row_number() over (
            partition by source, cart_id
            order by
                updated_at desc nulls last,
                loaded_at desc nulls last,
                status asc,
                total_amount asc nulls last,
                contact_id asc nulls last,
                email asc nulls last,
                user_id asc nulls last,
                visitor_id asc nulls last,
                cart_url asc nulls last,
                currency asc nulls last,
                created_at asc nulls last
        ) = 1
)

select
    source,
    cart_id,
    contact_id,
    email,
    user_id,
    visitor_id,
    status,
    currency,
    total_amount,
    cart_url,
    created_at,
    updated_at,
    loaded_at
from newest
where status is distinct from 'deleted'
