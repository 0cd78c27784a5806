-- Members against what the destination holds: every member key at which the two differ.
--
-- One row is a member key with one action. Key: member_key. Inputs: the waterfall, the target's state,
-- whom to try again.
--
--   * add, update: compared by payload hash, and null is a value (`is not distinct from`).
--   * refresh: as it should be, but the destination forgets what it was sent before `:stale_before`.
--   * refused: the destination rejected exactly this payload; it is sent again when it changes, and after a while
--     where she was refused for what she is there (tried_again.sql).
--   * remove: on the list and no member (who leaves and who has another address, phases 1 and 3; leavers.sql).
with members as (
    select
        profile_id,
        member_key,
        payload_hash
    from target.waterfall
    where step is null
),

compared as (
    select
        coalesce(members.profile_id, state.profile_id) as profile_id,
        coalesce(members.member_key, state.member_key) as member_key,
        members.payload_hash,
        state.last_removed,
        state.sent_at,
        members.member_key is not null as is_wanted,
        coalesce(state.is_present and not state.is_leaving, false) as is_listed,
        coalesce(state.payload is not distinct from key_hash(members.payload_hash), false) as is_same,
        tried_again.member_key is null
        and coalesce(state.refused_payload = key_hash(members.payload_hash), false) as is_refused,
        coalesce(state.sent_at < :stale_before, false) as is_stale
    from members
    full outer join target.state as state
        on members.member_key = state.member_key
    left join target.tried_again as tried_again
        on members.member_key = tried_again.member_key
)

select
    profile_id,
    member_key,
    payload_hash,
    last_removed,
    sent_at,
    is_listed,
    case
        when not is_wanted then 'remove'
        when is_refused and not (is_listed and is_same and not is_stale) then 'refused'
        when is_listed and is_same then 'refresh'
        when is_listed then 'update'
        else 'add'
    end as action
from compared
where
    (is_wanted and not (is_listed and is_same and not is_stale))
    or (is_listed and not is_wanted)
