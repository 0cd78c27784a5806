-- From segment to members: who may be on the list of one target, and who fell out where.
--
-- One row is a profile of the segment. Key: profile_id. `step` is the one step at which she fell out, null for a
-- member; `reason` says it in words. Inputs: the segment, core.profiles, core.consents, and the target's own state,
-- addresses, suppressed, touches, rivals.
--
-- The steps, in order:
--   1. bot_or_staff   a bot, or one of our own people: out of every audience
--   2. reachable      has an identifier this destination accepts; a shared or quarantined one belongs to nobody
--   3. consent        granted for the channel; any no is a no; unknown is no unless the audience allows it;
--                     the segment itself may restrict the channels of a profile (`allowed_channels`)
--   4. suppression    opted out, bounced, complained, erased: always, whatever the audience says; other reasons when
--                     it names them; what a tool told us after the last build counts already (suppressed.sql)
--   5. frequency_cap  gates entry only: who is on the list stays, whatever she was sent
--   6. priority       another audience of the same group with a larger number keeps her
--   7. holdout        never sent; a salted hash of the profile, so raising the share only moves people out
--   8. same_address   two profiles with one address: the list holds it once (copies.sql)
--
-- `payload_hash` stands for all that is sent of her, identifiers and mapped fields: equal content, equal hash. It is
-- compared before any JSON is written; `mapped_values` is written out by include/sync/payload.py.
with flagged as (
    select
        profile_id,
        coalesce(is_bot, false) as is_bot
    from core.profiles
    where is_bot or is_staff
),

denied as (
    select distinct profile_id
    from core.consents
    where channel = :consent_channel and status = 'denied'
),

ungranted as (
    select segment.profile_id
    from target.segment as segment
    left join core.consents as consents
        on
            segment.profile_id = consents.profile_id
            and consents.channel = :consent_channel
            and consents.status = 'granted'
    where consents.profile_id is null
),

too_often as (
    select profile_id
    from target.touches
    where touches >= :most_touches
),

listed as (
    select too_often.profile_id
    from too_often
    inner join target.state as state
        on too_often.profile_id = state.profile_id
    where state.is_present and not state.is_leaving
    union
    select too_often.profile_id
    from too_often
    inner join target.addresses as addresses
        on too_often.profile_id = addresses.profile_id
    inner join target.state as state
        on addresses.member_key = state.member_key
    where state.is_present and not state.is_leaving
),

capped as (
    select too_often.profile_id
    from too_often
    left join listed
        on too_often.profile_id = listed.profile_id
    where listed.profile_id is null
),

ranked_rivals as (
    select
        profile_id,
        audience,
        row_number() over (
            partition by profile_id
            order by priority desc, audience asc
        ) as strength
    from target.rivals
),

rivals as (
    select
        profile_id,
        audience
    from ranked_rivals
    where strength = 1
),

facts as (
    select
        segment.profile_id,
        addresses.member_key,
        suppressed.reason as suppression,
        rivals.audience as rival,
        md5(mapped_values() || addresses.identifiers) as payload_hash,
        flagged.profile_id is not null as is_flagged,
        coalesce(flagged.is_bot, false) as is_bot,
        segment.allowed_channels is null
        or ', ' || segment.allowed_channels || ',' like '%, ' || :channel || ',%' as is_allowed,
        denied.profile_id is not null as is_denied,
        ungranted.profile_id is null or :is_unknown_allowed as is_granted,
        capped.profile_id is not null as is_capped,
        :has_holdout and substring(md5(:holdout_salt || segment.profile_id), 1, 8) < :holdout_below as is_held_out
    from target.segment as segment
    left join target.addresses as addresses
        on segment.profile_id = addresses.profile_id
    left join flagged
        on segment.profile_id = flagged.profile_id
    left join denied
        on segment.profile_id = denied.profile_id
    left join ungranted
        on segment.profile_id = ungranted.profile_id
    left join target.suppressed as suppressed
        on segment.profile_id = suppressed.profile_id
    left join capped
        on segment.profile_id = capped.profile_id
    left join rivals
        on segment.profile_id = rivals.profile_id
)

select
    profile_id,
    member_key,
    payload_hash,
    case
        when is_flagged then 'bot_or_staff'
        when member_key is null then 'reachable'
        when not is_allowed or is_denied or not is_granted then 'consent'
        when suppression is not null then 'suppression'
        when is_capped then 'frequency_cap'
        when rival is not null then 'priority'
        when is_held_out then 'holdout'
    end as step,
    case
        when is_bot then 'bot'
        when is_flagged then 'staff'
        when member_key is null then :unreachable_reason
        when not is_allowed then 'the segment leaves this channel out'
        when is_denied then 'consent denied'
        when not is_granted then 'consent unknown'
        when suppression is not null then suppression
        when is_capped then :capped_reason
        when rival is not null then 'kept by the audience ' || rival
        when is_held_out then 'held out'
    end as reason
from facts
