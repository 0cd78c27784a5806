-- A row is a link of core.identifier_links that may be used: nobody erased, no quarantined e-mail.
-- Key: node_a, node_b.
-- materialized: work
-- Inputs: core.identifier_links, core.strong_components, core.erased_identifiers.
-- Rules (3, 21): what was seen for the last time before `erased_until` is gone; what was also seen after it begins there.
with quarantined as (
    select node
    from core.strong_components
    where is_quarantined
),

bounded as (
    select
        links.node_a,
        links.node_b,
        links.first_seen_at,
        links.last_seen_at,
        greatest(
            coalesce(erased_a.erased_until, timestamp '1970-01-01 00:00:00'),
            coalesce(erased_b.erased_until, timestamp '1970-01-01 00:00:00')
        ) as exists_from
    from core.identifier_links as links
    left join quarantined as quarantined_a
        on links.node_a = quarantined_a.node
    left join quarantined as quarantined_b
        on links.node_b = quarantined_b.node
    left join core.erased_identifiers as erased_a
        on links.node_a = erased_a.node
    left join core.erased_identifiers as erased_b
        on links.node_b = erased_b.node
    where
        quarantined_a.node is null
        and quarantined_b.node is null
)

select
    node_a,
    node_b,
    greatest(first_seen_at, exists_from) as first_seen_at,
    last_seen_at
from bounded
where last_seen_at >= exists_from
