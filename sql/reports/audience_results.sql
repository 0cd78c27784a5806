-- Each audience at each destination in one line: who matched, why others are not there, what was sent, what came of it.
--
-- materialized: view
--
-- One row is a target. Key: audience, destination. Inputs: sync.plans, sync.exclusions, sync.sends, sync.requests,
-- sync.memberships.
--
--   * matched to members is the newest plan (`as_of`): matched = members + everyone left out, each counted once.
--   * sent to unknown is the newest plan that had anything to send (`sent_plan_id`), adds, updates and removes
--     together. `to_send` are rows of it without an answer yet. Some ad platforms say how many of a request they
--     took, never whom: those count as accepted and rejected too, and `unknown` is what no count covers.
--   * at_destination is how many members the destination holds now, whatever plan brought them in.
with ranked_plans as (
    select
        plan_id,
        audience,
        destination,
        list_name,
        matched,
        members,
        adds + updates + removes as plan_rows,
        as_of,
        created_at,
        row_number() over (
            partition by audience, destination
            order by created_at desc, plan_id desc
        ) as recency,
        row_number() over (
            partition by audience, destination, case when adds + updates + removes > 0 then 1 else 0 end
            order by created_at desc, plan_id desc
        ) as recency_among_such
    from sync.plans
    where urgent_of is null
),

newest_plans as (
    select
        plan_id,
        audience,
        destination,
        list_name,
        matched,
        members,
        as_of,
        created_at
    from ranked_plans
    where recency = 1
),

sending_plans as (
    select
        plan_id,
        audience,
        destination,
        plan_rows
    from ranked_plans
    where plan_rows > 0 and recency_among_such = 1
),

left_out as (
    select
        newest_plans.plan_id,
        count(*) filter (where exclusions.step = 'reachable') as not_reachable,
        count(*) filter (where exclusions.step = 'consent') as no_consent,
        count(*) filter (where exclusions.step = 'suppression') as suppressed,
        count(*) filter (where exclusions.step = 'frequency_cap') as capped,
        count(*) filter (where exclusions.step = 'priority') as lost_priority,
        count(*) filter (where exclusions.step = 'holdout') as held_out,
        count(*) filter (
            where exclusions.step not in (
                'reachable', 'consent', 'suppression', 'frequency_cap', 'priority', 'holdout'
            )
        ) as other_excluded
    from newest_plans
    inner join sync.exclusions as exclusions
        on newest_plans.plan_id = exclusions.plan_id
    group by newest_plans.plan_id
),

row_answers as (
    select
        sending_plans.plan_id,
        count(*) filter (where sends.status <> 'retry') as sent,
        count(*) filter (where sends.status = 'accepted') as accepted,
        count(*) filter (where sends.status = 'rejected') as rejected,
        count(*) filter (where sends.status = 'pending') as pending,
        count(*) filter (where sends.status in ('unattributed', 'intended', 'unknown')) as unattributed
    from sending_plans
    inner join sync.sends as sends
        on
            sending_plans.audience = sends.audience
            and sending_plans.destination = sends.destination
            and sending_plans.plan_id = sends.plan_id
    group by sending_plans.plan_id
),

ranked_requests as (
    select
        request_id,
        plan_id,
        status,
        accepted_count,
        rejected_count,
        row_number() over (
            partition by request_id
            order by recorded_at desc, case when status = 'pending' then 1 else 0 end asc
        ) as recency
    from sync.requests
),

partial_requests as (
    select
        plan_id,
        sum(accepted_count) as accepted,
        sum(rejected_count) as rejected
    from ranked_requests
    where recency = 1 and status = 'partial'
    group by plan_id
),

held as (
    select
        audience,
        destination,
        count(*) as members
    from sync.memberships
    group by audience, destination
)

select
    newest_plans.audience,
    newest_plans.destination,
    newest_plans.plan_id,
    sending_plans.plan_id as sent_plan_id,
    newest_plans.list_name,
    newest_plans.matched,
    coalesce(left_out.not_reachable, 0) as not_reachable,
    coalesce(left_out.no_consent, 0) as no_consent,
    coalesce(left_out.suppressed, 0) as suppressed,
    coalesce(left_out.capped, 0) as capped,
    coalesce(left_out.lost_priority, 0) as lost_priority,
    coalesce(left_out.held_out, 0) as held_out,
    coalesce(left_out.other_excluded, 0) as other_excluded,
    newest_plans.members,
    coalesce(sending_plans.plan_rows, 0) - coalesce(row_answers.sent, 0) as to_send,
    coalesce(row_answers.sent, 0) as sent,
    cast(coalesce(row_answers.accepted, 0) + coalesce(partial_requests.accepted, 0) as bigint) as accepted,
    cast(coalesce(row_answers.rejected, 0) + coalesce(partial_requests.rejected, 0) as bigint) as rejected,
    coalesce(row_answers.pending, 0) as pending,
    cast(
        greatest(
            coalesce(row_answers.unattributed, 0)
            - coalesce(partial_requests.accepted, 0)
            - coalesce(partial_requests.rejected, 0),
            0
        ) as bigint
    ) as unknown,
    coalesce(held.members, 0) as at_destination,
    newest_plans.as_of,
    newest_plans.created_at as planned_at
from newest_plans
left join sending_plans
    on
        newest_plans.audience = sending_plans.audience
        and newest_plans.destination = sending_plans.destination
left join left_out
    on newest_plans.plan_id = left_out.plan_id
left join row_answers
    on sending_plans.plan_id = row_answers.plan_id
left join partial_requests
    on sending_plans.plan_id = partial_requests.plan_id
left join held
    on
        newest_plans.audience = held.audience
        and newest_plans.destination = held.destination
