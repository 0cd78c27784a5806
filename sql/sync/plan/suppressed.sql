-- Who must not be sent on this channel although consent is there, and why.
--
-- One row is a profile. Key: profile_id. Inputs: who said no (said_no.sql), who is sent with the same identifier
-- (alike.sql), core.suppressions, core.profile_activity.
--
-- Who said no, and who cannot be told from her by what is sent: always. Other reasons: when the audience names them.
with reasons as (
    select
        profile_id,
        reason,
        true as is_own
    from target.said_no
    where reason <> 'denied'
    union all
    select
        profile_id,
        reason,
        true as is_own
    from core.suppressions
    where
        coalesce(channel, 'all') in (:channel, 'all')
        and reason in (:named_reasons)
    union all
    select
        profile_id,
        'recent_purchasers' as reason,
        true as is_own
    from core.profile_activity
    where last_order_at >= :purchased_since and last_order_at < :as_of
    union all
    select
        profile_id,
        'somebody with the same identifier has said no' as reason,
        false as is_own
    from target.alike
)

select
    profile_id,
    coalesce(min(case when is_own then reason end), min(reason)) as reason
from reasons
where profile_id is not null
group by profile_id
