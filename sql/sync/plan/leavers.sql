-- Who is on the list and is no member of now, and which of the removals can wait.
--
-- One row is a member key. Key: member_key. Inputs: the differences, the waterfall, core.profiles, core.consents, and
-- the target's suppressed.
--
--   * phase 1 are leavers, phase 3 the old address of a member who is in under a new one.
--   * A leaver can wait (when the list would get too small without her) unless she may not be sent any more: opted
--     out, bounced, complained, consent denied or no longer granted, erased or gone into another profile. An address
--     that belongs to nobody, and an old address, never wait. Nor does who is held out now: a yardstick that still
--     sees the ads measures nothing.
--   * `turn` numbers those who can wait; who was sent last waits longest.
with leaving as (
    select
        profile_id,
        member_key,
        last_removed,
        sent_at
    from target.differences
    where action = 'remove'
),

stayers as (
    select distinct leaving.profile_id
    from leaving
    inner join target.waterfall as waterfall
        on leaving.profile_id = waterfall.profile_id
    where waterfall.step is null
),

consents as (
    select
        leaving.profile_id,
        max(case when consents.status = 'denied' then 1 else 0 end) as denials,
        max(case when consents.status = 'granted' then 1 else 0 end) as grants
    from leaving
    inner join core.consents as consents
        on leaving.profile_id = consents.profile_id
    where consents.channel = :consent_channel
    group by leaving.profile_id
),

barred as (
    select
        waterfall.profile_id,
        waterfall.step
    from target.waterfall as waterfall
    inner join leaving
        on waterfall.profile_id = leaving.profile_id
    where waterfall.step in ('bot_or_staff', 'consent', 'suppression', 'holdout')
    group by waterfall.profile_id, waterfall.step
),

judged as (
    select
        leaving.profile_id,
        leaving.member_key,
        leaving.last_removed,
        leaving.sent_at,
        case when stayers.profile_id is null then 1 else 3 end as phase,
        stayers.profile_id is null
        and profiles.profile_id is not null
        and barred.profile_id is null
        and suppressed.profile_id is null
        and coalesce(consents.denials, 0) = 0
        and (coalesce(consents.grants, 0) = 1 or :is_unknown_allowed) as can_wait
    from leaving
    left join stayers
        on leaving.profile_id = stayers.profile_id
    left join core.profiles as profiles
        on leaving.profile_id = profiles.profile_id
    left join barred
        on leaving.profile_id = barred.profile_id
    left join target.suppressed as suppressed
        on leaving.profile_id = suppressed.profile_id
    left join consents
        on leaving.profile_id = consents.profile_id
)

select
    profile_id,
    member_key,
    last_removed,
    phase,
    can_wait,
    row_number() over (
        partition by can_wait
        order by sent_at desc, member_key asc
    ) as turn
from judged
