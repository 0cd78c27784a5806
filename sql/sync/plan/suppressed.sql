-- Who must not be sent on this channel, and why.
--
-- One row is a profile. Key: profile_id. Inputs: core.suppressions, core.identifiers, core.profile_activity,
-- sync.opt_outs.
--
--   * Opted out, bounced, complained, erased: always, whatever the audience says; other reasons when it names them.
--   * What a tool told us after the last build counts already, by any identifier the person ever had (one that is
--     shared or quarantined too: who said no there may be her). A tool's own newest answer holds.
with tool_answers as (
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

reasons as (
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
)

select
    profile_id,
    min(reason) as reason
from reasons
where profile_id is not null
group by profile_id
