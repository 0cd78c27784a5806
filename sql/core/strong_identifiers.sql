-- A row is a strong identifier (CRM id, login, e-mail) with the profile it belongs to.
-- Key: node (see core.identifier_links).
-- materialized: work
-- Inputs: core.strong_components, core.erased_identifiers, core.living_links.
-- Rules: strong identifiers join profiles (1). Who came back after an erasure is joined anew, from what was seen together
-- since her consent alone (21). A profile is named after the strong identifier that was seen first (the smallest node
-- of that moment), so an identifier that is learned later does not rename it, and of two profiles that become one
-- the older name stays. The name is a hash, so that ids in logs and reports show nobody; after an erasure it is another.
with recursive living as (
    select
        node_a as node,
        first_seen_at,
        last_seen_at
    from core.living_links
    where
        node_b is null
        and node_a < '4'
),

untouched as (
    select
        living.node,
        components.component,
        living.first_seen_at,
        living.last_seen_at,
        cast(null as timestamp) as returned_at
    from living
    inner join core.strong_components as components
        on living.node = components.node
    left join core.erased_identifiers as erased
        on living.node = erased.node
    where erased.node is null
),

returned as (
    select
        living.node,
        living.first_seen_at,
        living.last_seen_at,
        erased.erased_until as returned_at
    from living
    inner join core.erased_identifiers as erased
        on living.node = erased.node
),

returned_links as (
    select
        links.node_a,
        links.node_b
    from core.living_links as links
    inner join returned
        on links.node_a = returned.node
    where links.node_b < '4'
),

edges as (
    select
        node_a as node,
        node_b as neighbour
    from returned_links
    union all
    select
        node_b as node,
        node_a as neighbour
    from returned_links
),

-- Few people come back, so this walk needs no preparation.
walked as (
    select
        node as start_node,
        node
    from returned
    union
    select
        walked.start_node,
        edges.neighbour as node
    from walked
    inner join edges
        on walked.node = edges.node
),

returned_components as (
    select
        node,
        min(start_node) as component
    from walked
    group by node
),

everyone as (
    select
        node,
        component,
        first_seen_at,
        last_seen_at,
        returned_at
    from untouched
    union all
    select
        returned.node,
        returned_components.component,
        returned.first_seen_at,
        returned.last_seen_at,
        returned.returned_at
    from returned
    inner join returned_components
        on returned.node = returned_components.node
),

names as (
    select
        component,
        'p_' || md5(node || coalesce('|' || cast(returned_at as varchar), '')) as profile_id
    from everyone
    qualify
        row_number() over (
            partition by component
            order by first_seen_at asc, node asc
        ) = 1
)

select
    everyone.node,
    names.profile_id,
    everyone.first_seen_at,
    everyone.last_seen_at
from everyone
inner join names
    on everyone.component = names.component
