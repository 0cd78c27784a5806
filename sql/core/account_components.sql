-- A row is a CRM id or login, and the person it belongs to by CRM ids, merges, logins and orders alone.
-- Key: node (see core.identifier_links).
-- materialized: work
-- Inputs: core.identifier_links.
-- Rules: neither kind is ever quarantined (3). `component` is the smallest node of the person. Two rounds over the
-- neighbours settle nearly everyone; the recursion only walks what is left of longer chains, so it stays small.
with recursive edges as (
    select
        node_a as node,
        node_b as neighbour
    from core.identifier_links
    where node_b < '3'
    union all
    select
        node_b as node,
        node_a as neighbour
    from core.identifier_links
    where node_b < '3'
),

first_round as (
    select
        links.node_a as node,
        least(links.node_a, coalesce(min(edges.neighbour), links.node_a)) as label
    from core.identifier_links as links
    left join edges
        on links.node_a = edges.node
    where
        links.node_b is null
        and links.node_a < '3'
    group by links.node_a
),

second_round as (
    select
        first_round.node,
        least(first_round.label, coalesce(min(neighbours.label), first_round.label)) as label
    from first_round
    left join edges
        on first_round.node = edges.node
    left join first_round as neighbours
        on edges.neighbour = neighbours.node
    group by first_round.node, first_round.label
),

open_edges as (
    select distinct
        one.label as node,
        other.label as neighbour
    from edges
    inner join second_round as one
        on edges.node = one.node
    inner join second_round as other
        on edges.neighbour = other.node
    where one.label <> other.label
),

starts as (
    select node
    from open_edges
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
        open_edges.neighbour as node
    from walked
    inner join open_edges
        on walked.node = open_edges.node
),

settled as (
    select
        node,
        min(start_node) as component
    from walked
    group by node
)

select
    second_round.node,
    coalesce(settled.component, second_round.label) as component
from second_round
left join settled
    on second_round.label = settled.node
