-- A row is a cart as a CRM or a shop holds it now; deleted ones are left out.
-- Key: source, cart_id.
-- Inputs: raw.carts.
-- Rules: the newest version of a record is the truth (11); a malformed e-mail is no e-mail (4).
with trimmed as (
    select
        tidy(source) as source,
        tidy(cart_id) as cart_id,
        tidy(contact_id) as contact_id,
        lower(tidy(email)) as email,
        known(tidy(user_id)) as user_id,
        tidy(visitor_id) as visitor_id,
        coalesce(lower(tidy(status)), 'open') as status,
        upper(tidy(currency)) as currency,
        total_amount,
        tidy(cart_url) as cart_url,
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
        case when is_email(email) then email end as email,
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
