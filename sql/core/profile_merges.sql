-- A row is the name of a profile that is gone, and the profile that has its identifiers now.
-- Key: profile_id.
-- materialized: incremental by node
-- Inputs: core.former_names, core.identifiers, core.erased_identifiers.
-- Rules: who went into another profile is found there at once, through however many others she went since. A name that
-- lives again is not here: what was joined by mistake, or a browser that turned out to be shared, is nobody else's past.
-- Nor is a name from before an erasure (21). `node` is the identifier that tells where the name went
-- (core.identifier_links), merged_at the as_of of the build in which it went. Materialized, so that touched identifiers are
-- found once.
with gone as (
    select
        profile_id,
        node,
        gone_at
    from core.former_names
    where touched_node(node)
    qualify
        row_number() over (
            partition by profile_id
            order by gone_at desc, node asc
        ) = 1
),

identifiers as materialized (
    select
        node,
        profile_id
    from core.identifiers
    where touched_node(node)
),

erased as (
    select
        node,
        erased_until
    from core.erased_identifiers
    where touched_node(node)
)

select
    gone.profile_id,
    identifiers.profile_id as into_profile_id,
    gone.node,
    gone.gone_at as merged_at
from gone
inner join identifiers
    on gone.node = identifiers.node
left join identifiers as living
    on gone.profile_id = living.profile_id
left join erased
    on gone.node = erased.node
where
    identifiers.profile_id is not null
    and living.node is null
    and coalesce(gone.gone_at >= erased.erased_until, true)
