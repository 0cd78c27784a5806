-- A row is an identifier of somebody who was erased: records that carry it, dated before `erased_until`, do not exist.
-- Key: node (see core.identifier_links).
-- materialized: incremental by node
-- Inputs: staging.suppressions (reason erased), staging.consents, staging.contact_identifiers, core.identifier_links,
-- core.strong_components, sync.erased_hashes (who was erased from the warehouse itself; see docs/privacy.md).
-- Rules (21): erased is the whole person: every CRM id, login and e-mail joined to the one named, what her contacts ever
-- held, and her browsers and phones. `erased_until` is the moment of the first consent she gave after the erasure, or the
-- end of time while there is none. A browser or phone she shared loses what it did up to the erasure and then goes on.
-- An e-mail in quarantine is nobody's and erases nobody. Of those who were deleted only a hash is left: whoever carries
-- such a strong identifier again is the same person. A browser or phone of theirs leads to nobody: it is out until it
-- meets somebody else, who then has it without what it did up to the erasure.
with recursive newest as (
    select
        source,
        kind,
        value,
        is_active,
        coalesce(changed_at, loaded_at, timestamp '1970-01-01 00:00:00') as erased_at
    from staging.suppressions
    where
        reason = 'erased'
        and coalesce(changed_at, timestamp '1970-01-01 00:00:00') < :as_of
        and (
            (kind = 'email' and touched_node('3:' || value))
            or (kind = 'phone' and touched_node('4:' || value))
            or (kind = 'contact_id' and (touched_node('1:' || value) or touched_node('1:' || source || ':' || value)))
        )
    qualify
        row_number() over (
            partition by source, kind, value, channel
            order by changed_at desc nulls last, loaded_at desc nulls last
        ) = 1
),

imported_again as (
    select
        links.node_a as node,
        max(kept.erased_at) as erased_at
    from core.identifier_links as links
    inner join sync.erased_hashes as kept
        on sha256(:erasure_salt || links.node_a) = kept.identifier_hash
    where links.node_b is null
    group by links.node_a
),

requests as (
    select
        '3:' || value as node,
        erased_at
    from newest
    where is_active and kind = 'email'
    union all
    select
        '4:' || value as node,
        erased_at
    from newest
    where is_active and kind = 'phone'
    union all
    select
        '1:' || value as node,
        erased_at
    from newest
    where is_active and kind = 'contact_id'
    union all
    select
        '1:' || source || ':' || value as node,
        erased_at
    from newest
    where is_active and kind = 'contact_id'
    union all
    select
        node,
        erased_at
    from imported_again
    where node < '4'
),

-- What contacts ever held, so that an address given up long ago still leads to the person.
held as (
    select
        '1:' || source || ':' || contact_id as contact_node,
        case
            when kind = 'user_id' then '2:' || value
            when kind = 'email' then '3:' || value
            when kind = 'phone' and value like '+%' then '4:' || value
        end as node
    from staging.contact_identifiers
    where
        kind in ('user_id', 'email', 'phone')
        and touched_node('1:' || source || ':' || contact_id)
),

held_by_one as (
    select
        held.node,
        min(components.component) as component
    from held
    inner join core.strong_components as components
        on held.contact_node = components.node
    where held.node is not null
    group by held.node
    having count(distinct components.component) = 1
),

weak_meetings as (
    select distinct
        links.node_b as node,
        components.component
    from core.identifier_links as links
    inner join core.strong_components as components
        on links.node_a = components.node
    where
        links.node_b >= '4'
        and components.component is not null
),

weak_owners as (
    select
        node,
        min(component) as component,
        count(*) as owners
    from weak_meetings
    group by node
),

-- Whose request it is: by a strong identifier, by a phone or an old address that leads to one person; else only itself.
request_owners as (
    select
        requests.node,
        requests.erased_at,
        coalesce(
            components.component,
            case when weak_owners.owners = 1 then weak_owners.component end,
            held_by_one.component,
            requests.node
        ) as person
    from requests
    left join core.strong_components as components
        on requests.node = components.node
    left join weak_owners
        on requests.node = weak_owners.node
    left join held_by_one
        on requests.node = held_by_one.node
    where not coalesce(components.is_quarantined, false)
),

people as (
    select
        person,
        max(erased_at) as erased_at
    from request_owners
    group by person
),

strong_nodes as (
    select
        people.person,
        components.node
    from people
    inner join core.strong_components as components
        on people.person = components.component
    union
    select
        people.person,
        held_by_one.node
    from people
    inner join held_by_one
        on people.person = held_by_one.component
    left join core.strong_components as components
        on held_by_one.node = components.node
    where
        held_by_one.node < '4'
        and components.node is null
    union
    select
        person,
        node
    from request_owners
),

weak_edges as (
    select
        node_a as node,
        node_b as neighbour
    from core.identifier_links
    where
        node_a >= '4'
        and node_b >= '4'
    union all
    select
        node_b as node,
        node_a as neighbour
    from core.identifier_links
    where
        node_a >= '4'
        and node_b >= '4'
),

-- Browsers and phones that never met anybody, but met one of hers; one that met too many is nobody's.
lone_edges as (
    select
        weak_edges.node,
        weak_edges.neighbour
    from weak_edges
    left join weak_owners
        on weak_edges.neighbour = weak_owners.node
    where weak_owners.node is null
),

lone_nodes as (
    select neighbour as node
    from lone_edges
    group by neighbour
    having count(distinct node) <= :quarantine_above
),

weak_starts as (
    select
        people.person,
        weak_owners.node
    from people
    inner join weak_owners
        on people.person = weak_owners.component
    where weak_owners.owners = 1
    union
    select
        person,
        node
    from request_owners
    where node >= '4'
),

weak_nodes as (
    select
        person,
        node
    from weak_starts
    union
    select
        weak_nodes.person,
        lone_edges.neighbour as node
    from weak_nodes
    inner join lone_edges
        on weak_nodes.node = lone_edges.node
    inner join lone_nodes
        on lone_edges.neighbour = lone_nodes.node
),

all_nodes as (
    select
        person,
        node
    from strong_nodes
    union
    select
        person,
        node
    from weak_nodes
),

answers as (
    select
        '1:' || source || ':' || contact_id as node,
        changed_at
    from staging.consents
    where
        status = 'granted'
        and changed_at < :as_of
        and touched_node(coalesce('1:' || source || ':' || contact_id, '3:' || email))
    union all
    select
        '3:' || email as node,
        changed_at
    from staging.consents
    where
        status = 'granted'
        and changed_at < :as_of
        and touched_node(coalesce('1:' || source || ':' || contact_id, '3:' || email))
),

returns as (
    select
        all_nodes.person,
        min(answers.changed_at) as returned_at
    from all_nodes
    inner join people
        on all_nodes.person = people.person
    inner join answers
        on
            all_nodes.node = answers.node
            and people.erased_at < answers.changed_at
    group by all_nodes.person
),

erased as (
    select
        all_nodes.node,
        people.erased_at,
        coalesce(returns.returned_at, timestamp '9999-12-31 00:00:00') as erased_until
    from all_nodes
    inner join people
        on all_nodes.person = people.person
    left join returns
        on all_nodes.person = returns.person
    union all
    select
        weak_meetings.node,
        people.erased_at,
        people.erased_at + interval '1 second' as erased_until
    from weak_meetings
    inner join people
        on weak_meetings.component = people.person
    inner join weak_owners
        on weak_meetings.node = weak_owners.node
    where weak_owners.owners > 1
    union all
    select
        imported_again.node,
        imported_again.erased_at,
        case
            when weak_owners.node is null then timestamp '9999-12-31 00:00:00'
            else imported_again.erased_at + interval '1 second'
        end as erased_until
    from imported_again
    left join weak_owners
        on imported_again.node = weak_owners.node
    where
        imported_again.node >= '4'
        and imported_again.node < '6'
)

select
    node,
    case left(node, 1)
        when '1' then 'contact_id'
        when '2' then 'user_id'
        when '3' then 'email'
        when '4' then 'phone'
        when '5' then 'visitor_id'
    end as identifier_kind,
    substr(node, 3) as identifier_value,
    max(erased_at) as erased_at,
    max(erased_until) as erased_until
from erased
group by node
