-- From segment to members: who is on the list of one target, and who fell out where.
--
-- One row is a profile of the segment. Key: profile_id. `step` is the one step at which she fell out, null for a
-- member; `reason` says it in words. Inputs: the segment, core.profiles, core.consents, core.suppressions,
-- core.identifiers, core.profile_activity, sync.opt_outs, and the target's own state, identifiers, touches, rivals.
--
-- The steps, in order:
--   1. bot_or_staff   a bot, or one of our own people: out of every audience
--   2. reachable      has an identifier this destination accepts; a shared or quarantined one belongs to nobody
--   3. consent        granted for the channel; any no is a no; unknown is no unless the audience allows it;
--                     the segment itself may restrict the channels of a profile (`allowed_channels`)
--   4. suppression    opted out, bounced, complained, erased: always, whatever the audience says; other reasons when
--                     it names them; what a tool told us after the last build counts already
--   5. frequency_cap  gates entry only: who is on the list stays, whatever she was sent
--   6. priority       another audience of the same group with a larger number keeps her
--   7. holdout        never sent; a salted hash of the profile, so raising the share only moves people out
--   8. same_address   two profiles with one address: the list holds it once
with people as (
    select
        segment.profile_id,
        segment.allowed_channels,
        coalesce(profiles.is_bot, false) as is_bot,
        coalesce(profiles.is_staff, false) as is_staff
    from target.segment as segment
    left join core.profiles as profiles
        on segment.profile_id = profiles.profile_id
),

ranked_identifiers as (
    select
        profile_id,
        identifier,
        row_number() over (
            partition by profile_id
            order by preference, choice
        ) as preferred
    from target.identifiers
),

addresses as (
    select
        profile_id,
        identifier as member_key
    from ranked_identifiers
    where preferred = 1
),

consents as (
    select
        profile_id,
        max(case when status = 'denied' then 1 else 0 end) as denials,
        max(case when status = 'granted' then 1 else 0 end) as grants
    from core.consents
    where channel = :consent_channel
    group by profile_id
),

tool_answers as (
    select
        kind,
        value,
        reason,
        is_active,
        row_number() over (
            partition by destination, kind, value, channel
            order by read_at desc nulls last, occurred_at desc nulls last, is_active desc
        ) as recency
    from sync.opt_outs
    where channel in (:channel, 'all')
),

suppression_reasons as (
    select
        profile_id,
        reason
    from core.suppressions
    where
        coalesce(channel, 'all') in (:channel, 'all')
        and reason in (:suppressed_reasons)
    union all
    select
        identifiers.profile_id,
        coalesce(tool_answers.reason, 'opted_out') as reason
    from tool_answers
    inner join core.identifiers as identifiers
        on
            tool_answers.kind = identifiers.identifier_kind
            and tool_answers.value = identifiers.identifier_value
    where tool_answers.recency = 1 and coalesce(tool_answers.is_active, true)
    union all
    select
        profile_id,
        'recent_purchasers' as reason
    from core.profile_activity
    where last_order_at >= :purchased_since and last_order_at < :as_of
),

suppressions as (
    select
        profile_id,
        min(reason) as reason
    from suppression_reasons
    group by profile_id
),

listed_profiles as (
    select distinct profile_id
    from target.state
    where is_present and not is_leaving
),

listed_addresses as (
    select member_key
    from target.state
    where is_present and not is_leaving
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
        people.profile_id,
        addresses.member_key,
        suppressions.reason as suppression,
        rivals.audience as rival,
        people.is_bot,
        people.is_staff,
        people.allowed_channels is null
        or ', ' || people.allowed_channels || ',' like '%, ' || :channel || ',%' as is_allowed,
        coalesce(consents.denials, 0) = 1 as is_denied,
        coalesce(consents.grants, 0) = 1 as is_granted,
        coalesce(touches.touches >= :most_touches, false)
        and listed_profiles.profile_id is null
        and listed_addresses.member_key is null as is_capped,
        substring(md5(:holdout_salt || people.profile_id), 1, 8) < :holdout_below as is_held_out
    from people
    left join addresses
        on people.profile_id = addresses.profile_id
    left join consents
        on people.profile_id = consents.profile_id
    left join suppressions
        on people.profile_id = suppressions.profile_id
    left join target.touches as touches
        on people.profile_id = touches.profile_id
    left join listed_profiles
        on people.profile_id = listed_profiles.profile_id
    left join listed_addresses
        on addresses.member_key = listed_addresses.member_key
    left join rivals
        on people.profile_id = rivals.profile_id
),

judged as (
    select
        profile_id,
        member_key,
        case
            when is_bot or is_staff then 'bot_or_staff'
            when member_key is null then 'reachable'
            when not is_allowed then 'consent'
            when is_denied then 'consent'
            when not is_granted and not :is_unknown_allowed then 'consent'
            when suppression is not null then 'suppression'
            when is_capped then 'frequency_cap'
            when rival is not null then 'priority'
            when is_held_out then 'holdout'
        end as step,
        case
            when is_bot then 'bot'
            when is_staff then 'staff'
            when member_key is null then :unreachable_reason
            when not is_allowed then 'the segment leaves this channel out'
            when is_denied then 'consent denied'
            when not is_granted and not :is_unknown_allowed then 'consent unknown'
            when suppression is not null then suppression
            when is_capped then :capped_reason
            when rival is not null then 'kept by the audience ' || rival
            when is_held_out then 'held out'
        end as reason
    from facts
),

counted as (
    select
        profile_id,
        member_key,
        step,
        reason,
        row_number() over (
            partition by step, member_key
            order by profile_id
        ) as copy
    from judged
)

select
    profile_id,
    member_key,
    case when step is null and copy > 1 then 'same_address' else step end as step,
    case when step is null and copy > 1 then 'same address as another profile' else reason end as reason
from counted
