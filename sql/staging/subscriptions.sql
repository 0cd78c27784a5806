-- A row is a paid or e-mail subscription as one system holds it now; deleted ones are left out.
-- Key: source, subscription_id.
-- Inputs: raw.subscriptions.
-- Rules: the newest version of a record is the truth (11); a malformed e-mail is no e-mail (4).
with trimmed as (
    select
        tidy(source) as source,
        tidy(subscription_id) as subscription_id,
        tidy(contact_id) as contact_id,
        lower(tidy(email)) as email,
        known(tidy(user_id)) as user_id,
        lower(tidy(kind)) as kind,
        tidy(plan) as plan,
        lower(tidy(status)) as status,
        upper(tidy(currency)) as currency,
        amount,
        coalesce(is_deleted, false) as is_deleted,
        started_at,
        ended_at,
        cancelled_at,
        updated_at,
        loaded_at
    from raw.subscriptions
),

newest as (
    select
        source,
        subscription_id,
        contact_id,
        case when is_email(email) then email end as email,
        user_id,
        kind,
        plan,
        status,
        currency,
        amount,
        is_deleted,
        started_at,
        ended_at,
        cancelled_at,
        updated_at,
        loaded_at
    from trimmed
    where
        subscription_id is not null
        and kind in ('paid', 'email')
    qualify
        row_number() over (
            partition by source, subscription_id
            order by
                updated_at desc nulls last,
                loaded_at desc nulls last,
                is_deleted desc,
                ended_at desc nulls last,
                started_at desc nulls last,
                cancelled_at desc nulls last,
                status asc nulls last,
                kind asc,
                plan asc nulls last,
                contact_id asc nulls last,
                email asc nulls last,
                user_id asc nulls last,
                amount asc nulls last,
                currency asc nulls last
        ) = 1
)

select
    source,
    subscription_id,
    contact_id,
    email,
    user_id,
    kind,
    plan,
    status,
    currency,
    amount,
    is_deleted,
    started_at,
    ended_at,
    cancelled_at,
    updated_at,
    loaded_at
from newest
where not is_deleted
