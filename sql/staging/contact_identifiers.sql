-- A row is an identifier that a CRM contact holds or ever held, the ids merged into it included.
-- Key: source, contact_id, kind, value.
-- Inputs: raw.contact_identifiers, raw.contacts (every version of the contact's own e-mail, phone and login).
-- Rules: `is_current` says whether the newest version of the contact still holds it: identity believes only those (11);
-- opt-outs and erasures follow the others too, so that they survive a change of address. A merge is for good (5).
with told as (
    select
        source,
        contact_id,
        kind,
        value,
        updated_at,
        loaded_at
    from raw.contact_identifiers
    union all
    select
        source,
        contact_id,
        'email' as kind,
        email as value,
        updated_at,
        loaded_at
    from raw.contacts
    union all
    select
        source,
        contact_id,
        'phone' as kind,
        phone as value,
        updated_at,
        loaded_at
    from raw.contacts
    union all
    select
        source,
        contact_id,
        'user_id' as kind,
        user_id as value,
        updated_at,
        loaded_at
    from raw.contacts
),

trimmed as (
    select
        tidy(source) as source,
        tidy(contact_id) as contact_id,
        lower(tidy(kind)) as kind,
        tidy(value) as value,
        updated_at,
        loaded_at
    from told
),

checked as (
    select
        source,
        contact_id,
        kind,
        case kind
            when 'email' then lower(value)
            when 'phone' then dialled(value)
            when 'user_id' then known(value)
            else value
        end as value,
        updated_at,
        loaded_at
    from trimmed
    where
        contact_id is not null
        and kind in ('email', 'phone', 'user_id', 'visitor_id', 'merged_contact_id')
),

newest_contacts as (
    select
        tidy(source) as source,
        tidy(contact_id) as contact_id,
        coalesce(is_deleted, false) as is_deleted,
        coalesce(updated_at, loaded_at) as version_at
    from raw.contacts
    qualify
        row_number() over (
            partition by tidy(source), tidy(contact_id)
            order by updated_at desc nulls last, loaded_at desc nulls last, coalesce(is_deleted, false) desc
        ) = 1
),

held as (
    select
        source,
        contact_id,
        kind,
        value,
        max(coalesce(updated_at, loaded_at)) as version_at,
        max(updated_at) as updated_at,
        max(loaded_at) as loaded_at
    from checked
    where
        value is not null
        and (
            kind is distinct from 'email'
            or is_email(value)
        )
    group by source, contact_id, kind, value
)

select
    held.source,
    held.contact_id,
    held.kind,
    held.value,
    held.kind = 'merged_contact_id'
    or (
        coalesce(not newest_contacts.is_deleted, true)
        and coalesce(held.version_at >= newest_contacts.version_at, true)
    ) as is_current,
    held.updated_at,
    held.loaded_at
from held
left join newest_contacts
    on
        held.source = newest_contacts.source
        and held.contact_id = newest_contacts.contact_id
