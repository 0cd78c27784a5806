-- The members of one target, as the destination is to have them.
--
-- One row is a member. Key: member_key. Inputs: the waterfall, the target's identifiers, the segment.
-- `identifiers` and `fields` are JSON text with sorted keys, so that equal content has an equal `payload_hash`;
-- `json_escaped`, `listed_kinds` and `mapped_fields` are written out by include/sync/payload.py.
with members as (
    select
        profile_id,
        member_key
    from target.waterfall
    where step is null
),

counted_identifiers as (
    select
        identifiers.profile_id,
        identifiers.kind,
        min(identifiers.identifier) as identifier,
        count(*) as identifier_count
    from target.identifiers as identifiers
    inner join members
        on identifiers.profile_id = members.profile_id
    group by identifiers.profile_id, identifiers.kind
),

-- Most people have one identifier of a kind, and only the others are worth a sort.
identifiers_by_kind as (
    select
        profile_id,
        kind,
        '"' || json_escaped(identifier) || '"' as listed
    from counted_identifiers
    where identifier_count = 1
    union all
    select
        counted_identifiers.profile_id,
        counted_identifiers.kind,
        string_agg(
            '"' || json_escaped(identifiers.identifier) || '"', ','
            order by identifiers.identifier
        ) as listed
    from counted_identifiers
    inner join target.identifiers as identifiers
        on
            counted_identifiers.profile_id = identifiers.profile_id
            and counted_identifiers.kind = identifiers.kind
    where counted_identifiers.identifier_count > 1
    group by counted_identifiers.profile_id, counted_identifiers.kind
),

identifier_texts as (
    select
        profile_id,
        listed_kinds() as identifiers
    from identifiers_by_kind
    group by profile_id
),

payloads as (
    select
        members.profile_id,
        members.member_key,
        identifier_texts.identifiers,
        mapped_fields() as fields
    from members
    inner join identifier_texts
        on members.profile_id = identifier_texts.profile_id
    inner join target.segment as segment
        on members.profile_id = segment.profile_id
)

select
    profile_id,
    member_key,
    identifiers,
    fields,
    md5(identifiers || fields) as payload_hash
from payloads
