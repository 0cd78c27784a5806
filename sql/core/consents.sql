-- A row is what a profile has answered about one channel (email or ads): granted, denied or unknown.
-- Key: profile_id, channel. No row means nobody ever asked, which is unknown too.
-- materialized: incremental by profile_id
-- Inputs: staging.consents, core.sessions, core.identifiers, core.erased_identifiers.
-- Rules (19): each contact of each source and each browser has one answer, its latest; any no is a no; unknown only when
-- nothing else was said. A browser's answer about ads is the ads_storage of its latest event that carries one. Source,
-- reason and time are those of the latest answer that decided. Answers from before an erasure are gone (21).
with told as (
    select
        source,
        contact_id,
        email,
        source || ':' || contact_id as contact_key,
        channel,
        status,
        reason,
        coalesce(changed_at, timestamp '1970-01-01 00:00:00') as changed_at
    from staging.consents
    where touched_node(coalesce('1:' || source || ':' || contact_id, '3:' || email))
),

latest as (
    select
        source,
        email,
        contact_key,
        channel,
        status,
        reason,
        changed_at
    from told
    where changed_at < :as_of
    qualify
        row_number() over (
            partition by source, coalesce(contact_id, email), channel
            order by changed_at desc, status asc, reason asc nulls last
        ) = 1
),

identifiers as (
    select
        identifier_kind,
        identifier_value,
        profile_id
    from core.identifiers
    where
        identifier_kind in ('contact_id', 'email')
        and touched_profile(profile_id)
),

erased as (
    select
        identifier_kind,
        identifier_value,
        erased_until
    from core.erased_identifiers
),

contact_answers as (
    select
        coalesce(by_contact.profile_id, by_email.profile_id) as profile_id,
        latest.channel,
        latest.status,
        latest.source,
        latest.reason,
        latest.changed_at
    from latest
    left join identifiers as by_contact
        on
            by_contact.identifier_kind = 'contact_id'
            and latest.contact_key = by_contact.identifier_value
    left join identifiers as by_email
        on
            by_email.identifier_kind = 'email'
            and latest.email = by_email.identifier_value
    left join erased as erased_contact
        on
            erased_contact.identifier_kind = 'contact_id'
            and latest.contact_key = erased_contact.identifier_value
    left join erased as erased_email
        on
            erased_email.identifier_kind = 'email'
            and latest.email = erased_email.identifier_value
    where
        coalesce(latest.changed_at >= erased_contact.erased_until, true)
        and coalesce(latest.changed_at >= erased_email.erased_until, true)
),

browser_times as (
    select
        profile_id,
        min(source) as source,
        max(ads_granted_at) as granted_at,
        max(ads_denied_at) as denied_at
    from core.sessions
    where
        coalesce(ads_granted_at, ads_denied_at) is not null
        and touched_profile(profile_id)
    group by profile_id, visitor_id
),

browser_answers as (
    select
        profile_id,
        'ads' as channel,
        case when coalesce(denied_at >= granted_at, granted_at is null) then 'denied' else 'granted' end as status,
        source,
        'ads_storage' as reason,
        greatest(coalesce(granted_at, denied_at), coalesce(denied_at, granted_at)) as changed_at
    from browser_times
),

answers as (
    select
        profile_id,
        channel,
        status,
        source,
        reason,
        changed_at
    from contact_answers
    where profile_id is not null
    union all
    select
        profile_id,
        channel,
        status,
        source,
        reason,
        changed_at
    from browser_answers
)

select
    profile_id,
    channel,
    status,
    source,
    reason,
    nullif(changed_at, timestamp '1970-01-01 00:00:00') as changed_at
from answers
qualify
    row_number() over (
        partition by profile_id, channel
        order by
            case status when 'denied' then 0 when 'granted' then 1 else 2 end asc,
            changed_at desc,
            source asc nulls last,
            reason asc nulls last
    ) = 1
