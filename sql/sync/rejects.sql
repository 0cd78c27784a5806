-- Who is not where she should be because of a destination's last answer, why, and when she is tried again.
--
-- materialized: view
--
-- One row is a member of a target whose newest sending was not taken. Key: audience, destination, member_key.
-- Input: sync.sends. `next_try`:
--
--   * next push: the platform said "not now", or her new address is not in yet.
--   * when the row changes: the platform refused exactly this row. For what she is at the tool (unsubscribed, not
--     confirmed, not on its list: Destination.passing_refusals) she is tried again a day later as well.
--   * next plan: a removal was refused, or some of its request failed; a leaver does not stay for that. The next time
--     its request is smaller, until it is hers alone.
--   * when the platform can tell: some of a request failed, or a call has lost its answer. Nothing is added blindly.
with newest_sends as (
    select
        audience,
        destination,
        plan_id,
        profile_id,
        member_key,
        action,
        status,
        reason,
        sent_at,
        acknowledged_at,
        row_number() over (
            partition by audience, destination, member_key
            order by sent_order desc
        ) as recency
    from sync.sends
)

select
    audience,
    destination,
    plan_id,
    profile_id,
    member_key,
    action,
    status,
    reason,
    case
        when status = 'retry' then 'next push'
        when status in ('rejected', 'unattributed') and action = 'remove' then 'next plan'
        when status = 'rejected' then 'when the row changes'
        else 'when the platform can tell'
    end as next_try,
    sent_at,
    acknowledged_at
from newest_sends
where recency = 1 and status not in ('accepted', 'pending')
