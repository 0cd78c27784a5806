-- How far each plan has been sent, and what of it is unfinished.
--
-- materialized: view
--
-- One row is a plan. Key: plan_id. Inputs: sync.plans, sync.plan_rows, sync.sends.
--
--   * `waiting` rows have no answer at all: the push has not begun, was killed, or gave up for now.
--   * `retry` rows go again with the next push, `pending` ones are asked after, `unknown` ones nobody can tell about.
--   * Finished: every row has an answer that stays. Superseded: the target has a newer plan, which takes up what is
--     left of this one.
--   * Of a plan whose rows were deleted for their age, what is left of its answers.
with sent_rows as (
    select
        plan_id,
        count(*) as row_count
    from sync.plan_rows
    group by plan_id
),

answers as (
    select
        plan_id,
        count(*) as answered,
        count(*) filter (where status = 'accepted') as accepted,
        count(*) filter (where status = 'rejected') as rejected,
        count(*) filter (where status = 'retry') as retry,
        count(*) filter (where status = 'pending') as pending,
        count(*) filter (where status in ('unattributed', 'intended', 'unknown')) as unknown,
        count(*) filter (where status = 'intended') as intended,
        min(sent_at) as began_at,
        max(acknowledged_at) as last_answer_at
    from sync.sends
    group by plan_id
),

newest_plans as (
    select
        plan_id,
        row_number() over (
            partition by audience, destination
            order by created_at desc, plan_id desc
        ) as recency
    from sync.plans
)

select
    plans.plan_id,
    plans.audience,
    plans.destination,
    plans.run_id,
    coalesce(sent_rows.row_count, 0) as row_count,
    greatest(coalesce(sent_rows.row_count, 0) - coalesce(answers.answered, 0), 0) as waiting,
    coalesce(answers.accepted, 0) as accepted,
    coalesce(answers.rejected, 0) as rejected,
    coalesce(answers.retry, 0) as retry,
    coalesce(answers.pending, 0) as pending,
    coalesce(answers.unknown, 0) as unknown,
    coalesce(sent_rows.row_count, 0) <= coalesce(answers.answered, 0)
    and coalesce(answers.retry, 0) + coalesce(answers.pending, 0) + coalesce(answers.intended, 0) = 0
        as is_finished,
    newest_plans.recency > 1 as is_superseded,
    plans.created_at,
    answers.began_at,
    answers.last_answer_at
from sync.plans as plans
inner join newest_plans
    on plans.plan_id = newest_plans.plan_id
left join sent_rows
    on plans.plan_id = sent_rows.plan_id
left join answers
    on plans.plan_id = answers.plan_id
