-- A row is a paid or e-mail subscription as one system holds it now; deleted ones are left out.
-- Key: source, subscription_id.
-- Inputs: raw.subscriptions.
-- Rules: the newest version of a record is the truth (11); a malformed e-mail is no e-mail (4).
with trimmed as (
    select
        nullif(trim(source, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as source,
        nullif(trim(subscription_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as subscription_id,
        nullif(trim(contact_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as contact_id,
        lower(nullif(trim(email, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as email,
        nullif(trim(user_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as user_id,
        lower(nullif(trim(kind, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as kind,
        nullif(trim(plan, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as plan,
        lower(nullif(trim(status, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as status,
        upper(nullif(trim(currency, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as currency,
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
        case when regexp_matches(email, '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$') then email end as email,
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
