-- A row is a strong identifier (CRM id, login, e-mail) and the person it belongs to, before erasures.
-- Key: node (see core.identifier_links).
-- materialized: work
-- Inputs: core.identifier_links, core.account_components.
-- Rules: strong identifiers join profiles (1). An e-mail that would join more than :quarantine_above profiles is
-- quarantined first (3): `joins` counts the people it was seen with by CRM id or login, the browsers it was seen on
-- that carry no CRM id or login, and the other e-mails of its orders (one that is known by CRM id or login as that
-- person). A quarantined e-mail has no component. Method as in core.account_components.
with recursive known_browsers as (
    select distinct node_b as node
    from core.identifier_links
    where
        node_a < '3'
        and node_b like '5:%'
),

-- Two e-mails meet on the records of one order.
email_meetings as (
    select
        node_a as email_node,
        node_b as other_node
    from core.identifier_links
    where
        node_a like '3:%'
        and node_b like '3:%'
    union all
    select
        node_b as email_node,
        node_a as other_node
    from core.identifier_links
    where
        node_a like '3:%'
        and node_b like '3:%'
),

known_others as (
    select
        email_meetings.other_node,
        min(accounts.component) as component
    from email_meetings
    inner join core.identifier_links as links
        on email_meetings.other_node = links.node_b
    inner join core.account_components as accounts
        on links.node_a = accounts.node
    group by email_meetings.other_node
),

email_partners as (
    select
        links.node_b as email_node,
        accounts.component as partner
    from core.identifier_links as links
    inner join core.account_components as accounts
        on links.node_a = accounts.node
    where links.node_b like '3:%'
    union all
    select
        links.node_a as email_node,
        links.node_b as partner
    from core.identifier_links as links
    left join known_browsers
        on links.node_b = known_browsers.node
    where
        links.node_a like '3:%'
        and links.node_b like '5:%'
        and known_browsers.node is null
    union all
    select
        email_meetings.email_node,
        coalesce(known_others.component, email_meetings.other_node) as partner
    from email_meetings
    left join known_others
        on email_meetings.other_node = known_others.other_node
),

email_joins as (
    select
        email_node,
        count(distinct partner) as joins
    from email_partners
    group by email_node
),

emails as (
    select
        links.node_a as node,
        greatest(coalesce(email_joins.joins, 1), 1) as joins
    from core.identifier_links as links
    left join email_joins
        on links.node_a = email_joins.email_node
    where
        links.node_b is null
        and links.node_a like '3:%'
),

-- From here on a person known by CRM id or login is one node, her component.
nodes as (
    select
        node,
        component as group_node
    from core.account_components
    union all
    select
        node,
        node as group_node
    from emails
    where joins <= :quarantine_above
),

links_of_groups as (
    select distinct
        one.group_node as node,
        other.group_node as neighbour
    from core.identifier_links as links
    inner join nodes as one
        on links.node_a = one.node
    inner join nodes as other
        on links.node_b = other.node
    where links.node_b like '3:%'
),

edges as (
    select
        node,
        neighbour
    from links_of_groups
    union all
    select
        neighbour as node,
        node as neighbour
    from links_of_groups
),

groups as (
    select distinct group_node as node
    from nodes
),

first_round as (
    select
        groups.node,
        least(groups.node, coalesce(min(edges.neighbour), groups.node)) as label
    from groups
    left join edges
        on groups.node = edges.node
    group by groups.node
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
),

components as (
    select
        second_round.node,
        coalesce(settled.component, second_round.label) as component
    from second_round
    left join settled
        on second_round.label = settled.node
),

joined as (
    select
        nodes.node,
        components.component,
        coalesce(emails.joins, 1) as joins,
        false as is_quarantined
    from nodes
    inner join components
        on nodes.group_node = components.node
    left join emails
        on nodes.node = emails.node
    union all
    select
        node,
        null as component,
        joins,
        true as is_quarantined
    from emails
    where joins > :quarantine_above
)

select
    node,
    component,
    joins,
    is_quarantined
from joined
