-- Who must not be sent on this channel although consent is there, and why.
--
-- One row is a profile. Key: profile_id. Inputs: who said no (said_no.sql), core.suppressions, core.profile_activity.
--
-- Who said no: always. Other reasons: when the audience names them.
with reasons as (
    select
        profile_id,
        reason
    from target.said_no
    where reason <> 'denied'
    union all
    select
        profile_id,
        reason
    from core.suppressions
    where
        coalesce(channel, 'all') in (:channel, 'all')
        and reason in (:named_reasons)
    union all
    select
        profile_id,
        'recent_purchasers' as reason
    from core.profile_activity
    where last_order_at >= :purchased_since and last_order_at < :as_of
)

select
    profile_id,
    min(reason) as reason
from reasons
where profile_id is not null
group by profile_id
