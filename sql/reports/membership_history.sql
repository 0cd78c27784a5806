-- Who was on which list, from when to when, and why she left.
--
-- materialized: view
--
-- One row is a stay of a member on the list of a target. Key: audience, destination, member_key, entered_at.
-- Inputs: sync.sends, sync.exclusions.
--
--   * `left_at` is null while she is on the list. Coming back is a new stay.
--   * `left_step` and `left_reason` say what kept her out in the plan that removed her; null where she no longer
--     matched the segment (she bought, or it was too long ago).
--   * A member whose address changed has a stay under each address.
with sends as (
    select
        audience,
        destination,
        plan_id,
        profile_id,
        member_key,
        case when action = 'remove' then 0 else 1 end as is_on,
        sent_order,
        sent_at
    from sync.sends
    where
        (action = 'remove' and status = 'accepted')
        or (action <> 'remove' and status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown'))
),

compared_sends as (
    select
        audience,
        destination,
        plan_id,
        profile_id,
        member_key,
        is_on,
        coalesce(
            lag(is_on) over (
                partition by audience, destination, member_key
                order by sent_order
            ),
            0
        ) as was_on,
        sent_order,
        sent_at
    from sends
),

turns as (
    select
        audience,
        destination,
        profile_id,
        member_key,
        is_on,
        sent_at as entered_at,
        lead(plan_id) over (
            partition by audience, destination, member_key
            order by sent_order
        ) as left_plan_id,
        lead(profile_id) over (
            partition by audience, destination, member_key
            order by sent_order
        ) as left_profile_id,
        lead(sent_at) over (
            partition by audience, destination, member_key
            order by sent_order
        ) as left_at
    from compared_sends
    where is_on <> was_on
)

select
    turns.audience,
    turns.destination,
    turns.profile_id,
    turns.member_key,
    exclusions.step as left_step,
    exclusions.reason as left_reason,
    turns.entered_at,
    turns.left_at
from turns
left join sync.exclusions as exclusions
    on
        turns.left_plan_id = exclusions.plan_id
        and turns.left_profile_id = exclusions.profile_id
where turns.is_on = 1
