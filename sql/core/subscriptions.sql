-- Paid plans and e-mail subscriptions, and whether they run at as_of.
--
-- One row is a subscription of a source, or the e-mail consent a source holds of a person. Key: subscription_key.
-- materialized: incremental by profile_id
-- Inputs: staging.subscriptions, staging.consents, core.record_profiles, core.identifiers, core.erased_identifiers.
--
-- Rules a marketer asks about (13 and 14):
--   * Ended means the paid period is over. Cancelled but paid until a later day is running; a failed payment that is
--     still retried (past_due) is running whatever its day.
--   * A plan that is cancelled, expired or failed and has no end of a paid period ended when it was cancelled, else
--     with its last version.
--   * Consent to e-mail is an e-mail subscription since the first yes after the last other answer; a no ends it.
with identifiers as (
    select
        identifier_kind,
        identifier_value,
        profile_id
    from core.identifiers
    where touched_node(node)
),

own_subscriptions as (
    select
        subscriptions.source || ':' || subscriptions.subscription_id as subscription_key,
        record_profiles.profile_id,
        subscriptions.source,
        subscriptions.kind,
        subscriptions.plan,
        subscriptions.status,
        subscriptions.started_at,
        coalesce(
            subscriptions.ended_at,
            case
                when subscriptions.status in ('cancelled', 'expired', 'failed')
                    then coalesce(subscriptions.cancelled_at, subscriptions.updated_at)
            end
        ) as ended_at,
        case when subscriptions.cancelled_at < :as_of then subscriptions.cancelled_at end as cancelled_at
    from staging.subscriptions as subscriptions
    inner join core.record_profiles as record_profiles
        on
            record_profiles.record_kind = 'subscription'
            and subscriptions.source = record_profiles.source
            and subscriptions.subscription_id = record_profiles.record_id
    where coalesce(subscriptions.started_at < :as_of, true)
),

answers as (
    select
        consents.source || ':email:' || coalesce(consents.contact_id, by_email.profile_id) as subscription_key,
        coalesce(by_contact.profile_id, by_email.profile_id) as profile_id,
        consents.source,
        consents.status,
        consents.changed_at
    from staging.consents as consents
    left join identifiers as by_contact
        on
            by_contact.identifier_kind = 'contact_id'
            and consents.source || ':' || consents.contact_id = by_contact.identifier_value
    left join identifiers as by_email
        on by_email.identifier_kind = 'email' and consents.email = by_email.identifier_value
    left join core.erased_identifiers as erased_contacts
        on
            erased_contacts.identifier_kind = 'contact_id'
            and consents.source || ':' || consents.contact_id = erased_contacts.identifier_value
    left join core.erased_identifiers as erased_emails
        on erased_emails.identifier_kind = 'email' and consents.email = erased_emails.identifier_value
    where
        consents.channel = 'email'
        and coalesce(consents.changed_at < :as_of, true)
        and touched_node(
            coalesce('1:' || consents.source || ':' || consents.contact_id, '3:' || consents.email)
        )
        -- What was answered before an erasure is gone (rule 21).
        and (
            erased_contacts.identifier_value is null
            or coalesce(consents.changed_at >= erased_contacts.erased_until, false)
        )
        and (
            erased_emails.identifier_value is null
            or coalesce(consents.changed_at >= erased_emails.erased_until, false)
        )
),

breaks as (
    select
        subscription_key,
        max(changed_at) as broken_at
    from answers
    where status <> 'granted'
    group by subscription_key
),

consents as (
    select
        answers.subscription_key,
        max(answers.profile_id) as profile_id,
        max(answers.source) as source,
        coalesce(
            min(answers.changed_at) filter (where breaks.broken_at is null or answers.changed_at > breaks.broken_at),
            min(answers.changed_at)
        ) as started_at,
        case
            when bool_or(breaks.broken_at is null or coalesce(answers.changed_at > breaks.broken_at, false)) then null
            else max(breaks.broken_at)
        end as ended_at
    from answers
    left join breaks
        on answers.subscription_key = breaks.subscription_key
    where answers.status = 'granted' and answers.profile_id is not null
    group by answers.subscription_key
),

subscriptions as (
    select * from own_subscriptions
    union all
    select
        subscription_key,
        profile_id,
        source,
        'email' as kind,
        cast(null as text) as plan,
        case when ended_at is null then 'active' else 'cancelled' end as status,
        started_at,
        ended_at,
        ended_at as cancelled_at
    from consents
)

select
    subscription_key,
    profile_id,
    source,
    kind,
    plan,
    status,
    coalesce(ended_at >= :as_of, true) or coalesce(status = 'past_due', false) as is_running,
    started_at,
    ended_at,
    cancelled_at
from subscriptions
