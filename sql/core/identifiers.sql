-- A row is an identifier and the profile it points at: the answer of identity.
-- Key: identifier_kind, identifier_value (a contact_id is written <source>:<id>; an id merged into another is a row too).
-- materialized: incremental by node
-- Inputs: core.strong_identifiers, core.strong_components, core.living_links, core.erased_identifiers.
-- Rules: a strong identifier (contact_id, user_id, email) has the profile it was joined into. A weak one (browser, phone)
-- is `joined` to the one strong profile it has met; `shared` once it has met two, and then has a profile of its own for
-- what carries only it; `alone` when it has met none (1, 2). Weak ones that met only each other are one anonymous
-- profile, which goes to the strong profile it touches through a joined browser or phone, if that is exactly one.
-- What would join more than :quarantine_above profiles (`joins`: strong profiles met, and anonymous weak ones met) is
-- `quarantined` and has no profile (3). Erased identifiers are not here (21).
-- node is kind and value as one text (core.identifier_links).
-- profile_id: see core.strong_identifiers; an anonymous or shared one is named after its own first seen weak identifier.
with recursive weak as (
    select
        node_a as node,
        first_seen_at,
        last_seen_at
    from core.living_links
    where
        node_b is null
        and node_a >= '4'
),

meetings as (
    select distinct
        links.node_b as node,
        strong_identifiers.profile_id
    from core.living_links as links
    inner join core.strong_identifiers as strong_identifiers
        on links.node_a = strong_identifiers.node
    where links.node_b >= '4'
),

met as (
    select
        node,
        count(*) as profiles,
        min(profile_id) as profile_id
    from meetings
    group by node
),

weak_edges as (
    select
        node_a as node,
        node_b as neighbour
    from core.living_links
    where
        node_a >= '4'
        and node_b >= '4'
    union all
    select
        node_b as node,
        node_a as neighbour
    from core.living_links
    where
        node_a >= '4'
        and node_b >= '4'
),

anonymous_partners as (
    select
        weak_edges.node,
        count(*) as partners
    from weak_edges
    left join met
        on weak_edges.neighbour = met.node
    where met.node is null
    group by weak_edges.node
),

judged as (
    select
        weak.node,
        weak.first_seen_at,
        weak.last_seen_at,
        greatest(coalesce(met.profiles, 0) + coalesce(anonymous_partners.partners, 0), 1) as joins,
        case
            when coalesce(met.profiles, 0) + coalesce(anonymous_partners.partners, 0) > :quarantine_above
                then 'quarantined'
            when met.profiles > 1 then 'shared'
            when met.profiles = 1 then 'joined'
            else 'alone'
        end as state,
        met.profile_id as met_profile_id
    from weak
    left join met
        on weak.node = met.node
    left join anonymous_partners
        on weak.node = anonymous_partners.node
),

lone_edges as (
    select
        weak_edges.node,
        weak_edges.neighbour
    from weak_edges
    inner join judged as one
        on weak_edges.node = one.node
    inner join judged as other
        on weak_edges.neighbour = other.node
    where
        one.state = 'alone'
        and other.state = 'alone'
),

starts as (
    select node
    from lone_edges
    group by node
    having node < min(neighbour)
),

-- `union`, because a node is walked once from each start and circles must end.
walked as (
    select
        node as start_node,
        node
    from starts
    union
    select
        walked.start_node,
        lone_edges.neighbour as node
    from walked
    inner join lone_edges
        on walked.node = lone_edges.node
),

settled as (
    select
        node,
        min(start_node) as group_node
    from walked
    group by node
),

-- Everything weak that has a profile of its own: anonymous groups, and each shared one by itself.
own as (
    select
        judged.node,
        judged.state,
        judged.first_seen_at,
        coalesce(settled.group_node, judged.node) as group_node
    from judged
    left join settled
        on judged.node = settled.node
    where judged.state in ('alone', 'shared')
),

own_names as (
    select
        own.group_node,
        'p_' || md5(own.node || coalesce('|' || cast(erased.erased_until as varchar), '')) as profile_id
    from own
    left join core.erased_identifiers as erased
        on own.node = erased.node
    qualify
        row_number() over (
            partition by own.group_node
            order by own.first_seen_at asc, own.node asc
        ) = 1
),

touched as (
    select
        own.group_node,
        min(joined.met_profile_id) as profile_id
    from own
    inner join weak_edges
        on own.node = weak_edges.node
    inner join judged as joined
        on weak_edges.neighbour = joined.node
    where
        own.state = 'alone'
        and joined.state = 'joined'
    group by own.group_node
    having count(distinct joined.met_profile_id) = 1
),

weak_answers as (
    select
        judged.node,
        case
            when judged.state = 'joined' then judged.met_profile_id
            when judged.state = 'alone' then coalesce(touched.profile_id, own_names.profile_id)
            when judged.state = 'shared' then own_names.profile_id
        end as profile_id,
        'weak' as strength,
        case
            when judged.state = 'alone' and touched.profile_id is not null then 'joined'
            else judged.state
        end as state,
        judged.joins,
        judged.first_seen_at,
        judged.last_seen_at
    from judged
    left join own
        on judged.node = own.node
    left join own_names
        on own.group_node = own_names.group_node
    left join touched
        on own.group_node = touched.group_node
),

quarantined_emails as (
    select
        links.node_a as node,
        components.joins,
        links.first_seen_at,
        links.last_seen_at
    from core.identifier_links as links
    inner join core.strong_components as components
        on links.node_a = components.node
    where
        links.node_b is null
        and components.is_quarantined
),

answers as (
    select
        strong_identifiers.node,
        strong_identifiers.profile_id,
        'strong' as strength,
        'joined' as state,
        components.joins,
        strong_identifiers.first_seen_at,
        strong_identifiers.last_seen_at
    from core.strong_identifiers as strong_identifiers
    inner join core.strong_components as components
        on strong_identifiers.node = components.node
    union all
    select
        node,
        null as profile_id,
        'strong' as strength,
        'quarantined' as state,
        joins,
        first_seen_at,
        last_seen_at
    from quarantined_emails
    union all
    select
        node,
        profile_id,
        strength,
        state,
        joins,
        first_seen_at,
        last_seen_at
    from weak_answers
)

select
    case left(node, 1)
        when '1' then 'contact_id'
        when '2' then 'user_id'
        when '3' then 'email'
        when '4' then 'phone'
        when '5' then 'visitor_id'
    end as identifier_kind,
    substr(node, 3) as identifier_value,
    profile_id,
    strength,
    state,
    joins,
    nullif(first_seen_at, timestamp '1970-01-01 00:00:00') as first_seen_at,
    nullif(last_seen_at, timestamp '1970-01-01 00:00:00') as last_seen_at,
    node
from answers
