-- The identifiers of the segment's profiles in the form in which one destination wants one kind.
--
-- One row is an identifier of a profile. Inputs: core.identifiers, the segment. Run once for every kind the destination
-- accepts; `as_sent` is that kind's way of writing it.
--
-- An identifier that is shared or quarantined belongs to nobody and is never sent.
with written as (
    select
        identifiers.profile_id,
        as_sent(identifiers.identifier_value) as identifier
    from core.identifiers as identifiers
    inner join target.segment as segment
        on identifiers.profile_id = segment.profile_id
    where
        identifiers.identifier_kind = :source_kind
        and coalesce(identifiers.state, 'alone') not in ('shared', 'quarantined')
)

select
    profile_id,
    :kind as kind,
    identifier,
    :preference as preference
from written
where identifier is not null
