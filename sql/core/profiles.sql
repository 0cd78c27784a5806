-- A row is a profile: one person or one anonymous visitor.
-- Key: profile_id.
-- materialized: incremental by profile_id
-- Inputs: core.identifiers, core.record_profiles, core.sessions, staging.contacts.
-- Rules: each piece of contact data is the one of the newest CRM contact that has it; without one, the e-mail or phone
-- seen last. A quarantined e-mail or phone is nobody's (3). Bots: one visit of a bot is enough (core.sessions). Staff:
-- traffic marked internal, or an e-mail at a company domain. Both as whole profiles (18).
with own_identifiers as not materialized (
    select
        identifier_kind,
        identifier_value,
        profile_id,
        strength,
        state,
        first_seen_at,
        last_seen_at
    from core.identifiers
    where
        profile_id is not null
        and touched_profile(profile_id)
),

quarantined as (
    select
        identifier_kind,
        identifier_value
    from core.identifiers
    where
        profile_id is null
        and identifier_kind in ('email', 'phone')
),

contacts as (
    select
        record_profiles.profile_id,
        record_profiles.source,
        record_profiles.record_id,
        case when quarantined_emails.identifier_value is null then contacts.email end as email,
        case
            when contacts.phone like '+%' and quarantined_phones.identifier_value is null then contacts.phone
        end as phone,
        contacts.first_name,
        contacts.last_name,
        contacts.country,
        contacts.created_at,
        contacts.updated_at
    from staging.contacts as contacts
    inner join core.record_profiles as record_profiles
        on
            record_profiles.record_kind = 'contact'
            and contacts.source = record_profiles.source
            and contacts.record_key = record_profiles.record_id
    left join quarantined as quarantined_emails
        on
            quarantined_emails.identifier_kind = 'email'
            and contacts.email = quarantined_emails.identifier_value
    left join quarantined as quarantined_phones
        on
            quarantined_phones.identifier_kind = 'phone'
            and contacts.phone = quarantined_phones.identifier_value
),

ranked as (
    select
        profile_id,
        email,
        phone,
        first_name,
        last_name,
        country,
        created_at,
        row_number() over (
            partition by profile_id
            order by
                case when email is null then 1 else 0 end asc,
                coalesce(updated_at, created_at) desc nulls last,
                source asc,
                record_id asc
        ) as email_rank,
        row_number() over (
            partition by profile_id
            order by
                case when phone is null then 1 else 0 end asc,
                coalesce(updated_at, created_at) desc nulls last,
                source asc,
                record_id asc
        ) as phone_rank,
        row_number() over (
            partition by profile_id
            order by
                case when coalesce(first_name, last_name) is null then 1 else 0 end asc,
                coalesce(updated_at, created_at) desc nulls last,
                source asc,
                record_id asc
        ) as name_rank,
        row_number() over (
            partition by profile_id
            order by
                case when country is null then 1 else 0 end asc,
                coalesce(updated_at, created_at) desc nulls last,
                source asc,
                record_id asc
        ) as country_rank
    from contacts
),

best_contacts as (
    select
        profile_id,
        max(email) filter (where email_rank = 1) as email,
        max(phone) filter (where phone_rank = 1) as phone,
        max(first_name) filter (where name_rank = 1) as first_name,
        max(last_name) filter (where name_rank = 1) as last_name,
        max(country) filter (where country_rank = 1) as country,
        min(created_at) as crm_created_at
    from ranked
    group by profile_id
),

best_identifiers as (
    select
        profile_id,
        identifier_kind,
        identifier_value
    from own_identifiers
    where
        identifier_kind = 'email'
        or (identifier_kind = 'phone' and state = 'joined')
    qualify
        row_number() over (
            partition by profile_id, identifier_kind
            order by last_seen_at desc nulls last, identifier_value asc
        ) = 1
),

seen as (
    select
        profile_id,
        max(case when strength = 'strong' then 1 else 0 end) = 1 as is_known,
        max(
            case
                when
                    identifier_kind = 'email'
                    and split_part(identifier_value, '@', 2) in (:company_domains)
                    then 1
                else 0
            end
        ) = 1 as has_company_email,
        min(first_seen_at) as first_seen_at,
        max(last_seen_at) as last_seen_at
    from own_identifiers
    group by profile_id
),

marked as (
    select
        profile_id,
        bool_or(is_bot) as is_bot,
        bool_or(is_internal) as is_internal
    from core.sessions
    where
        (is_bot or is_internal)
        and touched_profile(profile_id)
    group by profile_id
)

select
    seen.profile_id,
    coalesce(best_contacts.email, best_emails.identifier_value) as email,
    coalesce(best_contacts.phone, best_phones.identifier_value) as phone,
    best_contacts.first_name,
    best_contacts.last_name,
    best_contacts.country,
    seen.is_known,
    coalesce(marked.is_bot, false) as is_bot,
    coalesce(marked.is_internal, false) or seen.has_company_email as is_staff,
    best_contacts.profile_id is not null as has_crm_contact,
    best_contacts.crm_created_at,
    seen.first_seen_at,
    seen.last_seen_at
from seen
left join best_contacts
    on seen.profile_id = best_contacts.profile_id
left join best_identifiers as best_emails
    on
        seen.profile_id = best_emails.profile_id
        and best_emails.identifier_kind = 'email'
left join best_identifiers as best_phones
    on
        seen.profile_id = best_phones.profile_id
        and best_phones.identifier_kind = 'phone'
left join marked
    on seen.profile_id = marked.profile_id
