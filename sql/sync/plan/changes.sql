-- Members against what the destination holds: what there is to send, and what is as it should be.
--
-- One row is a member key with one action. Key: member_key. Inputs: the target's members, identifiers and state,
-- sync.sends.
--
--   * add, update, unchanged: compared by payload hash, and null is a value (`is distinct from`).
--   * refused: the destination rejected exactly this payload; it is sent again when it changes.
--   * remove: everything the member was ever sent with since she came in, except what another member of now still
--     holds. Nothing left to take away: no row, until that other member goes too.
--   * phase 1 are leavers, 2 members coming in or changing, 3 the old address of a member who is in under a new one.
--
-- `target.numbers` holds the even numbers up to the most quotation marks in a ledger row: identifiers are JSON of our
-- own making, in which no value holds a quotation mark, so every second piece between the marks is a name or a value.
with compared_members as (
    select
        members.profile_id,
        members.member_key,
        members.identifiers,
        members.fields,
        members.payload_hash,
        coalesce(state.is_present and not state.is_leaving, false) as is_listed,
        coalesce(state.payload_hash is distinct from members.payload_hash, false) as is_different,
        coalesce(state.refused_hash = members.payload_hash, false) as is_refused
    from target.members as members
    left join target.state as state
        on members.member_key = state.member_key
),

wanted as (
    select
        profile_id,
        member_key,
        identifiers,
        fields,
        payload_hash,
        case
            when is_listed and not is_different then 'unchanged'
            when is_refused then 'refused'
            when is_listed then 'update'
            else 'add'
        end as action
    from compared_members
),

wanted_profiles as (
    select distinct profile_id
    from target.members
),

leavers as (
    select
        state.profile_id,
        state.member_key,
        state.last_removed,
        case when wanted_profiles.profile_id is null then 1 else 3 end as phase
    from target.state as state
    left join target.members as members
        on state.member_key = members.member_key
    left join wanted_profiles
        on state.profile_id = wanted_profiles.profile_id
    where
        state.is_present
        and not state.is_leaving
        and members.member_key is null
),

sent_texts as (
    select distinct
        leavers.member_key,
        coalesce(
            sends.identifiers,
            '{"' || :key_kind || '":["' || json_escaped(leavers.member_key) || '"]}'
        ) as identifiers
    from leavers
    inner join sync.sends as sends
        on leavers.member_key = sends.member_key
    where
        sends.audience = :audience
        and sends.destination = :destination
        and sends.action <> 'remove'
        and sends.status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown')
        and sends.sent_order > leavers.last_removed
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
    from sent_texts
    inner join target.numbers as numbers
        on numbers.n <= length(sent_texts.identifiers) - length(replace(sent_texts.identifiers, '"', ''))
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
    inner join wanted_profiles
        on identifiers.profile_id = wanted_profiles.profile_id
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
    profile_id,
    member_key,
    action,
    identifiers,
    fields,
    payload_hash,
    2 as phase
from wanted
union all
select
    leavers.profile_id,
    leavers.member_key,
    'remove' as action,
    freed_texts.identifiers,
    cast(null as text) as fields,
    cast(null as text) as payload_hash,
    leavers.phase
from leavers
inner join freed_texts
    on leavers.member_key = freed_texts.member_key
