-- Why people who match are not on a list, as of the newest plan of each target.
--
-- materialized: view
--
-- One row is a reason. Key: audience, destination, step, reason. Inputs: sync.plans, sync.exclusions.
-- Everyone who matched and is no member is counted once, at the first step that kept her out; the steps in their
-- order: bot_or_staff, reachable, consent, suppression, frequency_cap, priority, holdout, same_address.
with ranked_plans as (
    select
        plan_id,
        audience,
        destination,
        as_of,
        row_number() over (
            partition by audience, destination
            order by created_at desc, plan_id desc
        ) as recency
    from sync.plans
)

select
    ranked_plans.audience,
    ranked_plans.destination,
    exclusions.step,
    exclusions.reason,
    count(*) as profiles,
    ranked_plans.as_of
from ranked_plans
inner join sync.exclusions as exclusions
    on ranked_plans.plan_id = exclusions.plan_id
where ranked_plans.recency = 1
group by
    ranked_plans.audience,
    ranked_plans.destination,
    exclusions.step,
    exclusions.reason,
    ranked_plans.as_of
