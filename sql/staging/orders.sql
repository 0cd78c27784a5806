-- A row is an order as one system holds it now.
-- Key: source, order_id (the shop's number where the system has no id of its own).
-- Inputs: raw.orders.
-- Rules: the newest version of a record is the truth (11); a malformed e-mail is no e-mail (4).
with trimmed as (
    select
        tidy(source) as source,
        tidy(order_id) as order_id,
        known(tidy(transaction_id)) as transaction_id,
        tidy(contact_id) as contact_id,
        lower(tidy(email)) as email,
        dialled(tidy(phone)) as phone,
        known(tidy(user_id)) as user_id,
        tidy(visitor_id) as visitor_id,
        lower(tidy(status)) as status,
        upper(tidy(currency)) as currency,
        total_amount,
        coalesce(is_test, false) as is_test,
        ordered_at,
        updated_at,
        loaded_at
    from raw.orders
),

checked as (
    select
        source,
        coalesce(order_id, transaction_id) as order_id,
        transaction_id,
        contact_id,
        case when is_email(email) then email end as email,
        phone,
        user_id,
        visitor_id,
        status,
        currency,
        total_amount,
        is_test,
        ordered_at,
        updated_at,
        loaded_at
    from trimmed
    where ordered_at is not null
)

select
    source,
    order_id,
    transaction_id,
    contact_id,
    email,
    phone,
    user_id,
    visitor_id,
    status,
    currency,
    total_amount,
    is_test,
    ordered_at,
    updated_at,
    loaded_at
from checked
where order_id is not null
qualify
    row_number() over (
        partition by source, order_id
        order by
            updated_at desc nulls last,
            loaded_at desc nulls last,
            ordered_at desc,
            status asc nulls last,
            total_amount asc nulls last,
            transaction_id asc nulls last,
            contact_id asc nulls last,
            email asc nulls last,
            user_id asc nulls last,
            visitor_id asc nulls last,
            phone asc nulls last,
            currency asc nulls last,
            is_test asc
    ) = 1
