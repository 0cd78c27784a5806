-- A row is one answer about consent at one time, as one source tells it.
-- Key: source, contact_id, email, channel, changed_at (a later answer is another row: core takes the latest before as_of).
-- Inputs: raw.consents.
-- Rules: an answer loaded twice counts once, the newest load wins; two answers of one moment: no is a no (19).
with trimmed as (
    select
        tidy(source) as source,
        tidy(contact_id) as contact_id,
        lower(tidy(email)) as email,
        lower(tidy(channel)) as channel,
        lower(tidy(status)) as status,
        tidy(reason) as reason,
        changed_at,
        loaded_at
    from raw.consents
),

checked as (
    select
        source,
        contact_id,
        case when is_email(email) then email end as email,
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
