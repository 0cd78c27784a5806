-- Answers in the ledger that nothing asks for any more.
--
-- One row is a row of sync.ledger from before `:before`. Key: sequence. Inputs: sync.ledger, sync.sends, sync.plans.
--
-- Of a member of a target these stay, however old they are:
--
--   * the sending with which a stay on the list began, and the one that ended it (`reports.membership_history`);
--   * of each stay, the first sending with the same identifiers: whatever was sent can still be taken away and erased;
--   * the newest sending of all, the newest that puts on the list, the newest that takes off;
--   * what was not answered for good, and everything of a target's newest plan.
--
-- Of a sending that stays, the first answer (when it was sent) and the newest one (what holds).
with newest_plans as (
    select plan_id
    from sync.plans
    qualify row_number() over (
        partition by audience, destination
        order by created_at desc, plan_id desc
    ) = 1
),

sends as (
    select
        sends.audience,
        sends.destination,
        sends.plan_id,
        sends.member_key,
        sends.action,
        sends.status,
        sends.sent_order,
        sends.acknowledged_at,
        coalesce(sends.identifiers, '') as identifiers,
        case when sends.action = 'remove' then 1 else 0 end as is_removal,
        case
            when sends.action = 'remove' and sends.status = 'accepted' then 0
            when
                sends.action <> 'remove'
                and sends.status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown') then 1
        end as is_on,
        newest_plans.plan_id is not null as is_newest_plan
    from sync.sends as sends
    left join newest_plans
        on sends.plan_id = newest_plans.plan_id
),

turns as (
    select
        *,
        coalesce(
            lag(is_on) over (
                partition by audience, destination, member_key
                order by sent_order
            ),
            0
        ) as was_on
    from sends
    where is_on is not null
),

stays as (
    select
        *,
        sum(case when is_on <> was_on then 1 else 0 end) over (
            partition by audience, destination, member_key
            order by sent_order
            rows between unbounded preceding and current row
        ) as stay
    from turns
),

needed_sends as (
    select
        audience,
        destination,
        plan_id,
        member_key,
        action
    from stays
    qualify
        is_on <> was_on
        or row_number() over (
            partition by audience, destination, member_key, is_on
            order by sent_order desc
        ) = 1
        or (
            is_on = 1
            and row_number() over (
                partition by audience, destination, member_key, stay, identifiers
                order by sent_order
            ) = 1
        )
    union distinct
    select
        audience,
        destination,
        plan_id,
        member_key,
        action
    from sends
    qualify
        is_newest_plan
        or status not in ('accepted', 'rejected', 'retry')
        or acknowledged_at >= :before
        or row_number() over (
            partition by audience, destination, member_key, is_removal
            order by sent_order desc
        ) = 1
),

answers as (
    select
        sequence,
        audience,
        destination,
        plan_id,
        member_key,
        action,
        acknowledged_at,
        row_number() over (
            partition by audience, destination, plan_id, member_key, action
            order by sequence
        ) as place,
        row_number() over (
            partition by audience, destination, plan_id, member_key, action
            order by sequence desc
        ) as recency
    from sync.ledger
)

select answers.sequence
from answers
left join needed_sends
    on
        answers.audience = needed_sends.audience
        and answers.destination = needed_sends.destination
        and answers.plan_id = needed_sends.plan_id
        and answers.member_key = needed_sends.member_key
        and answers.action = needed_sends.action
where
    answers.acknowledged_at < :before
    and (
        needed_sends.member_key is null
        or (answers.place > 1 and answers.recency > 1)
    )
