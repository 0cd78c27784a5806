-- What there is to send: every difference with exactly what is sent of it.
--
-- One row is a member key with one action. Key: member_key. Inputs: the differences, the leavers, what they
-- are and were sent with, the segment, the waterfall.
--
--   * remove: everything the member was ever sent with since she came in, except what another member of now still
--     holds. Nothing left to take away: no row, until that other member goes too.
--   * Of the leavers who can wait, the first `:held` in turn do: the list would get too small without them.
--   * phase 1 are leavers, 2 members coming in or changing, 3 the old address of a member who is in under a new one.
--   * `identifiers` and `fields` are JSON text with sorted keys; `json_escaped`, `listed_kinds` and `mapped_fields` are
--     written out by include/sync/payload.py.
--
-- `target.numbers` holds the even numbers up to the most quotation marks in what leavers were sent with: identifiers
-- are JSON of our own making, in which no value holds a quotation mark, so every second piece between the marks is a
-- name or a value.
with wanted as (
    select
        profile_id,
        member_key,
        action,
        payload_hash
    from target.differences
    where action in ('add', 'update', 'refresh')
),

-- Most people have one identifier of a kind, and only the others are worth a sort.
identifiers_by_kind as (
    select
        alone.profile_id,
        alone.kind,
        '"' || json_escaped(alone.identifier) || '"' as listed
    from target.alone as alone
    inner join wanted
        on alone.profile_id = wanted.profile_id
    union all
    select
        several.profile_id,
        several.kind,
        string_agg(
            '"' || json_escaped(several.identifier) || '"', ','
            order by several.identifier
        ) as listed
    from target.several as several
    inner join wanted
        on several.profile_id = wanted.profile_id
    group by several.profile_id, several.kind
),

identifier_texts as (
    select
        profile_id,
        listed_kinds() as identifiers
    from identifiers_by_kind
    group by profile_id
),

pieces as (
    select
        sent_texts.member_key,
        sent_texts.identifiers,
        split_part(sent_texts.identifiers, '"', numbers.n) as piece,
        case
            when split_part(sent_texts.identifiers, '"', numbers.n + 1) like ':%' then 1
            else 0
        end as is_kind,
        numbers.n
    from target.sent_texts as sent_texts
    inner join target.numbers as numbers
        on sent_texts.marks >= numbers.n
),

numbered_pieces as (
    select
        member_key,
        identifiers,
        piece,
        is_kind,
        sum(is_kind) over (
            partition by member_key, identifiers
            order by n
            rows between unbounded preceding and current row
        ) as kind_number
    from pieces
),

kinds as (
    select
        member_key,
        identifiers,
        kind_number,
        piece as kind
    from numbered_pieces
    where is_kind = 1
),

sent_identifiers as (
    select distinct
        numbered_pieces.member_key,
        kinds.kind,
        numbered_pieces.piece,
        replace(replace(numbered_pieces.piece, '\u0022', '"'), '\u005c', '\') as identifier
    from numbered_pieces
    inner join kinds
        on
            numbered_pieces.member_key = kinds.member_key
            and numbered_pieces.identifiers = kinds.identifiers
            and numbered_pieces.kind_number = kinds.kind_number
    where numbered_pieces.is_kind = 0
),

held_identifiers as (
    select distinct
        sent_identifiers.kind,
        sent_identifiers.identifier
    from sent_identifiers
    inner join target.identifiers as identifiers
        on
            sent_identifiers.kind = identifiers.kind
            and sent_identifiers.identifier = identifiers.identifier
    inner join target.waterfall as waterfall
        on identifiers.profile_id = waterfall.profile_id
    where waterfall.step is null
),

freed_identifiers as (
    select
        sent_identifiers.member_key,
        sent_identifiers.kind,
        string_agg(
            '"' || sent_identifiers.piece || '"', ','
            order by sent_identifiers.piece
        ) as listed
    from sent_identifiers
    left join held_identifiers
        on
            sent_identifiers.kind = held_identifiers.kind
            and sent_identifiers.identifier = held_identifiers.identifier
    where held_identifiers.identifier is null
    group by sent_identifiers.member_key, sent_identifiers.kind
),

freed_texts as (
    select
        member_key,
        '{' || string_agg('"' || kind || '":[' || listed || ']', ',' order by kind) || '}' as identifiers
    from freed_identifiers
    group by member_key
)

select
    wanted.profile_id,
    wanted.member_key,
    wanted.action,
    identifier_texts.identifiers,
    mapped_fields() as fields,
    wanted.payload_hash,
    2 as phase
from wanted
inner join identifier_texts
    on wanted.profile_id = identifier_texts.profile_id
inner join target.segment as segment
    on wanted.profile_id = segment.profile_id
union all
select
    leavers.profile_id,
    leavers.member_key,
    'remove' as action,
    freed_texts.identifiers,
    cast(null as text) as fields,
    cast(null as text) as payload_hash,
    leavers.phase
from target.leavers as leavers
inner join freed_texts
    on leavers.member_key = freed_texts.member_key
