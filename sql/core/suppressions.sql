-- A row is a reason not to send something to a profile.
-- Key: profile_id, channel, reason, source.
-- materialized: incremental by profile_id
-- Inputs: staging.suppressions, sync.opt_outs, staging.engagement (bounces and complaints), core.identifiers,
-- core.living_links, core.strong_identifiers, staging.contact_identifiers, core.erased_identifiers.
-- Rules: of one source, identifier, channel and reason the latest statement before as_of holds, and counts while it is
-- active; an opt-out at a tool ends only when that tool says so, of the same list (20), and one without a time of its own counts at once.
-- It meets every profile that holds the identifier, was seen with it, or whose contact ever held it, and a domain meets
-- every e-mail at it or at a sub-domain. Bounces and complaints close e-mail only (20). Consents are not here. An erasure
-- ends with a new consent (21), an opt-out does not.
with source_statements as (
    select
        source,
        kind,
        value,
        channel,
        reason,
        is_active,
        coalesce(changed_at, timestamp '1970-01-01 00:00:00') as since_at
    from staging.suppressions
    where coalesce(changed_at, timestamp '1970-01-01 00:00:00') < :as_of
    qualify
        row_number() over (
            partition by source, kind, value, channel, reason
            order by changed_at desc nulls last, loaded_at desc nulls last, is_active desc
        ) = 1
),

opt_outs as (
    select
        destination,
        kind,
        case when kind = 'email' then lower(trim(value)) else value end as value,
        channel,
        reason,
        coalesce(is_active, true) as is_active,
        coalesce(occurred_at, read_at, timestamp '1970-01-01 00:00:00') as since_at
    from sync.opt_outs
    where occurred_at is null or occurred_at < :as_of
    qualify
        row_number() over (
            partition by destination, list_name, kind, value, channel
            order by read_at desc nulls last, occurred_at desc nulls last, coalesce(is_active, true) desc
        ) = 1
),

bad_touches as (
    select
        source,
        source || ':' || contact_id as contact_key,
        email,
        case type when 'bounce' then 'bounced' else 'complained' end as reason,
        min(occurred_at) as since_at
    from staging.engagement
    where
        type in ('bounce', 'complaint')
        and channel = 'email'
        and occurred_at < :as_of
        and touched_node(coalesce('1:' || source || ':' || contact_id, '3:' || email, '5:' || visitor_id))
    group by source, contact_id, email, type
),

statements as (
    select
        source,
        kind,
        value,
        channel,
        reason,
        since_at
    from source_statements
    where is_active
    union all
    -- A contact may be named by its system's own id.
    select
        source,
        kind,
        source || ':' || value as value,
        channel,
        reason,
        since_at
    from source_statements
    where
        is_active
        and kind = 'contact_id'
    union all
    select
        destination as source,
        kind,
        value,
        channel,
        reason,
        since_at
    from opt_outs
    where is_active
    union all
    select
        source,
        'email' as kind,
        email as value,
        'email' as channel,
        reason,
        since_at
    from bad_touches
    where email is not null
    union all
    select
        source,
        'contact_id' as kind,
        contact_key as value,
        'email' as channel,
        reason,
        since_at
    from bad_touches
    where
        email is null
        and contact_key is not null
),

standing as (
    select
        statements.source,
        statements.kind,
        statements.value,
        statements.channel,
        statements.reason,
        statements.since_at
    from statements
    left join core.erased_identifiers as erased
        on
            statements.kind = erased.identifier_kind
            and statements.value = erased.identifier_value
    where
        statements.reason is distinct from 'erased'
        or erased.erased_until is null
        or erased.erased_until >= :as_of
),

-- Who holds, was seen with or ever held what.
holders as (
    select
        identifier_kind as kind,
        identifier_value as value,
        profile_id
    from core.identifiers
    where
        identifier_kind in ('email', 'phone', 'contact_id')
        and profile_id is not null
        and touched_node(node)
    union
    select
        'phone' as kind,
        substr(links.node_b, 3) as value,
        strong_identifiers.profile_id
    from core.living_links as links
    inner join core.strong_identifiers as strong_identifiers
        on links.node_a = strong_identifiers.node
    where links.node_b like '4:%'
    union
    select
        held.kind,
        held.value,
        contacts.profile_id
    from staging.contact_identifiers as held
    inner join core.identifiers as contacts
        on
            contacts.identifier_kind = 'contact_id'
            and contacts.identifier_value = held.source || ':' || held.contact_id
    where
        held.kind in ('email', 'phone')
        and touched_node('1:' || held.source || ':' || held.contact_id)
),

holder_domains as (
    select
        value,
        profile_id,
        split_part(value, '@', 2) as domain
    from holders
    where kind = 'email'
),

domains as (
    select distinct domain
    from holder_domains
),

-- There are far fewer domains than e-mails, so each is looked at once.
met_domains as (
    select
        domains.domain,
        standing.channel,
        standing.reason,
        standing.source,
        standing.since_at
    from standing
    inner join domains
        on
            standing.value = domains.domain
            or '.' || standing.value = right(domains.domain, length(standing.value) + 1)
    where standing.kind = 'domain'
),

met as (
    select
        holders.profile_id,
        standing.channel,
        standing.reason,
        standing.source,
        standing.since_at
    from standing
    inner join holders
        on
            standing.kind = holders.kind
            and standing.value = holders.value
    union all
    -- An opt-out that outlived an erasure: of the address only a hash is left (docs/privacy.md).
    select
        holders.profile_id,
        standing.channel,
        standing.reason,
        standing.source,
        standing.since_at
    from standing
    inner join holders
        on standing.value = sha256(
            :erasure_salt || case holders.kind when 'email' then '3:' else '4:' end || holders.value
        )
    where
        standing.kind = 'hashed'
        and holders.kind in ('email', 'phone')
    union all
    select
        holder_domains.profile_id,
        met_domains.channel,
        met_domains.reason,
        met_domains.source,
        met_domains.since_at
    from met_domains
    inner join holder_domains
        on met_domains.domain = holder_domains.domain
)

select
    profile_id,
    channel,
    reason,
    source,
    nullif(min(since_at), timestamp '1970-01-01 00:00:00') as since_at
from met
where profile_id is not null
group by profile_id, channel, reason, source
