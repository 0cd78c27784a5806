-- A row is one answer about consent at one time, as one source tells it.
-- Key: source, contact_id, email, channel, changed_at (a later answer is another row: core takes the latest before as_of).
-- Inputs: raw.consents.
-- Rules: an answer loaded twice counts once, the newest load wins; two answers of one moment: no is a no (19).
with trimmed as (
    select
        nullif(trim(source, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as source,
        nullif(trim(contact_id, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as contact_id,
        lower(nullif(trim(email, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as email,
        lower(nullif(trim(channel, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as channel,
        lower(nullif(trim(status, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '')) as status,
        nullif(trim(reason, ' ' || chr(9) || chr(10) || chr(13) || chr(160)), '') as reason,
        changed_at,
        loaded_at
    from raw.consents
),

checked as (
    select
        source,
        contact_id,
        case when regexp_matches(email, '^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$') then email end as email,
        channel,
        status,
        reason,
        changed_at,
        loaded_at
    from trimmed
    where
        channel in ('email', 'ads')
        and status in ('granted', 'denied', 'unknown')
)

select
    source,
    contact_id,
    email,
    channel,
    status,
    reason,
    changed_at,
    loaded_at
from checked
where
    contact_id is not null
    or email is not null
qualify
    row_number() over (
        partition by source, contact_id, email, channel, changed_at
        order by loaded_at desc nulls last, status asc, reason asc nulls last
    ) = 1
