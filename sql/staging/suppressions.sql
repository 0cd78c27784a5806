-- A row is one statement of a source at one time that somebody must not be sent (or, not active, may be again).
-- Key: source, kind, value, channel, reason, changed_at (core takes the latest before as_of).
-- Inputs: raw.suppressions.
-- Rules: a channel nobody knows means all of them, and a missing flag means active: doubt never sends.
with trimmed as (
    select
        tidy(source) as source,
        lower(tidy(kind)) as kind,
        tidy(value) as value,
        lower(tidy(channel)) as channel,
        lower(tidy(reason)) as reason,
        coalesce(is_active, true) as is_active,
        changed_at,
        loaded_at
    from raw.suppressions
),

checked as (
    select
        source,
        kind,
        case
            when kind = 'email' then lower(value)
            when kind = 'phone' then dialled(value)
            when kind = 'domain' then nullif(ltrim(lower(value), '@.'), '')
            else value
        end as value,
        case when channel in ('email', 'ads') then channel else 'all' end as channel,
        coalesce(reason, 'suppressed') as reason,
        is_active,
        changed_at,
        loaded_at
    from trimmed
    where kind in ('email', 'domain', 'phone', 'contact_id')
)

select
    source,
    kind,
    value,
    channel,
    reason,
    is_active,
    changed_at,
    loaded_at
from checked
where
    value is not null
    and (
        kind is distinct from 'email'
        or is_email(value)
    )
    and (
        kind is distinct from 'phone'
        or value like '+%'
    )
qualify
    row_number() over (
        partition by source, kind, value, channel, reason, changed_at
        order by loaded_at desc nulls last, is_active desc
    ) = 1
