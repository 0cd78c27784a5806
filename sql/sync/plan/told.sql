-- What tools have told of people, by whatever identifier the people were known with.
--
-- One row is a tool's newest answer about an identifier, for somebody it concerns: a profile, or somebody who was sent
-- to this list with it (`member_key`). Key: none, a person can be met in several ways. Inputs: sync.opt_outs,
-- core.identifiers, core.profile_merges, staging.contact_identifiers, and who was sent with what (target.sent_keys).
--
--   * An e-mail address is the same in capitals.
--   * It concerns who has the identifier, whose contact ever held it, and who was sent to this list with it.
--   * Each list of a tool speaks for itself: who left one and is on another has said no.
with said as (
    select
        destination,
        list_name,
        kind,
        case when kind = 'email' then lower(trim(value)) else value end as value,
        channel,
        coalesce(reason, 'opted_out') as reason,
        coalesce(is_active, true) as is_active,
        occurred_at,
        read_at
    from sync.opt_outs
    where kind not in ('read', 'hashed')
),

answers as (
    select
        destination,
        list_name,
        kind,
        value,
        channel,
        reason,
        is_active,
        occurred_at
    from said
    qualify
        row_number() over (
            partition by destination, list_name, kind, value, channel
            order by read_at desc nulls last, occurred_at desc nulls last, is_active desc
        ) = 1
)

select
    identifiers.profile_id,
    cast(null as text) as member_key,
    answers.destination,
    answers.list_name,
    answers.channel,
    answers.reason,
    answers.is_active,
    answers.occurred_at
from answers
inner join core.identifiers as identifiers
    on
        answers.kind = identifiers.identifier_kind
        and answers.value = identifiers.identifier_value
union all
select
    contacts.profile_id,
    cast(null as text) as member_key,
    answers.destination,
    answers.list_name,
    answers.channel,
    answers.reason,
    answers.is_active,
    answers.occurred_at
from answers
inner join staging.contact_identifiers as held
    on
        answers.kind = held.kind
        and answers.value = held.value
inner join core.identifiers as contacts
    on held.source || ':' || held.contact_id = contacts.identifier_value
where contacts.identifier_kind = 'contact_id'
union all
select
    coalesce(renamed.into_profile_id, sent.profile_id) as profile_id,
    sent.member_key,
    answers.destination,
    answers.list_name,
    answers.channel,
    answers.reason,
    answers.is_active,
    answers.occurred_at
from answers
inner join target.sent_keys as sent
    on answers.value = sent.member_key
left join core.profile_merges as renamed
    on sent.profile_id = renamed.profile_id
