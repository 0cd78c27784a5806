-- A row is a CRM contact as its system holds it now; deleted ones are left out.
-- Key: source, record_key (the system's contact_id; where it has none, the e-mail, login or phone of the row).
-- Inputs: raw.contacts.
-- Rules: the newest version of a record is the truth (11); a malformed e-mail is no e-mail (4); blanks are nothing;
-- a row with nothing to identify it is in staging.rejected_rows.
with trimmed as (
    select
        tidy(source) as source,
        tidy(contact_id) as contact_id,
        lower(tidy(email)) as email,
        dialled(tidy(phone)) as phone,
        known(tidy(user_id)) as user_id,
        tidy(first_name) as first_name,
        tidy(last_name) as last_name,
        upper(tidy(country)) as country,
        created_at,
        updated_at,
        coalesce(is_deleted, false) as is_deleted,
        loaded_at
    from raw.contacts
),

checked as (
    select
        source,
        contact_id,
        case when is_email(email) then email end as email,
        phone,
        user_id,
        first_name,
        last_name,
        country,
        is_deleted,
        created_at,
        updated_at,
        loaded_at
    from trimmed
),

keyed as (
    select
        source,
        coalesce(contact_id, email, user_id, phone) as record_key,
        contact_id,
        email,
        phone,
        user_id,
        first_name,
        last_name,
        country,
        is_deleted,
        created_at,
        updated_at,
        loaded_at
    from checked
),

newest as (
    select
        source,
        record_key,
        contact_id,
        email,
        phone,
        user_id,
        first_name,
        last_name,
        country,
        is_deleted,
        created_at,
        updated_at,
        loaded_at
    from keyed
    where record_key is not null
    qualify
        row_number() over (
            partition by source, record_key
            order by
                updated_at desc nulls last,
                loaded_at desc nulls last,
                is_deleted desc,
                email asc nulls last,
                user_id asc nulls last,
                phone asc nulls last,
                first_name asc nulls last,
                last_name asc nulls last,
                country asc nulls last,
                created_at asc nulls last
        ) = 1
)

select
    source,
    record_key,
    contact_id,
    email,
    phone,
    user_id,
    first_name,
    last_name,
    country,
    is_deleted,
    created_at,
    updated_at,
    loaded_at
from newest
where not is_deleted
