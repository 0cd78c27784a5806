-- Who must not be sent on this channel, and why.
--
-- One row is a profile. Key: profile_id. Inputs: core.suppressions, core.identifiers, core.profile_activity,
-- core.profile_merges, staging.contact_identifiers, sync.opt_outs, the target's state.
--
--   * Opted out, bounced, complained, erased: always, whatever the audience says; other reasons when it names them.
--   * What a tool told us after the last build counts already, by any identifier the person has, by one that a contact
--     of hers ever held, and by the address she was sent to this list with. A tool's own newest answer holds.
with said as (
    select
        destination,
        kind,
        case when kind = 'email' then lower(trim(value)) else value end as value,
        channel,
        reason,
        is_active,
        occurred_at,
        read_at
    from sync.opt_outs
    where channel in (:channel, 'all')
),

tool_answers as (
    select
        kind,
        value,
        reason,
        is_active,
        row_number() over (
            partition by destination, kind, value, channel
            order by read_at desc nulls last, occurred_at desc nulls last, is_active desc
        ) as recency
    from said
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
        contacts.profile_id,
        coalesce(tool_answers.reason, 'opted_out') as reason
    from tool_answers
    inner join staging.contact_identifiers as held
        on
            tool_answers.kind = held.kind
            and tool_answers.value = held.value
    inner join core.identifiers as contacts
        on
            contacts.identifier_kind = 'contact_id'
            and contacts.identifier_value = held.source || ':' || held.contact_id
    where tool_answers.recency = 1 and coalesce(tool_answers.is_active, true)
    union all
    select
        coalesce(renamed.into_profile_id, state.profile_id) as profile_id,
        coalesce(tool_answers.reason, 'opted_out') as reason
    from tool_answers
    inner join target.state as state
        on tool_answers.value = state.member_key
    left join core.profile_merges as renamed
        on state.profile_id = renamed.profile_id
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
