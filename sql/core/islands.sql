-- A row is an identifier and its island: everything it was ever seen with, directly or through others.
-- Key: node (see core.identifier_links). An identifier that was never seen with another is its own island and not here.
-- materialized: incremental by node
-- Inputs: core.record_nodes.
-- Rules: identity never looks beyond an island, nor does anything about a profile. So a build works out anew the islands
-- that new records touched, whole, and no others. `island` is the smallest node in it. Method as in
-- core.account_components.
with recursive record_nodes as (
    select distinct
        record,
        node
    from core.record_nodes
),

centres as (
    select
        record,
        min(node) as centre
    from record_nodes
    group by record
    having min(node) <> max(node)
),

ties as (
    select distinct
        centres.centre,
        record_nodes.node
    from record_nodes
    inner join centres
        on record_nodes.record = centres.record
    where record_nodes.node <> centres.centre
),

edges as (
    select
        centre as node,
        node as neighbour
    from ties
    union all
    select
        node,
        centre as neighbour
    from ties
),

first_round as (
    select
        node,
        least(node, min(neighbour)) as label
    from edges
    group by node
),

second_round as (
    select
        edges.node,
        least(min(one.label), min(other.label)) as label
    from edges
    inner join first_round as one
        on edges.node = one.node
    inner join first_round as other
        on edges.neighbour = other.node
    group by edges.node
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
        min(start_node) as island
    from walked
    group by node
)

select
    second_round.node,
    coalesce(settled.island, second_round.label) as island
from second_round
left join settled
    on second_round.label = settled.node
