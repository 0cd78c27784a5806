-- How often a person was touched lately, over all channels together (the frequency cap).
--
-- One row is a profile with a touch in [capped_since, as_of). Key: profile_id.
-- Inputs: core.engagement, core.profile_merges, sync.sends, the segment.
--
--   * Each e-mail that was sent is a touch.
--   * Each entry into an audience's ad lists is a touch, and all ad platforms together are one: she enters when the
--     first list takes her, and enters again only after the last one has let her go. What was sent of a profile that
--     is one with hers by now counts.
with people as (
    select profile_id
    from target.segment
),

names as (
    select
        profile_id,
        profile_id as name
    from people
    union distinct
    select
        people.profile_id,
        renamed.profile_id as name
    from people
    inner join core.profile_merges as renamed
        on people.profile_id = renamed.into_profile_id
),

emails as (
    select engagement.profile_id
    from core.engagement as engagement
    inner join people
        on engagement.profile_id = people.profile_id
    where
        engagement.type = 'sent'
        and engagement.channel = 'email'
        and engagement.occurred_at >= :capped_since
        and engagement.occurred_at < :as_of
),

ad_sends as (
    select
        sends.audience,
        sends.destination,
        names.profile_id,
        sends.member_key,
        case when sends.action = 'remove' then 0 else 1 end as is_on,
        sends.sent_order,
        sends.sent_at
    from sync.sends as sends
    inner join names
        on sends.profile_id = names.name
    where
        sends.destination in (:ad_destinations)
        and sends.status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown')
        and sends.sent_at < :as_of
),

ad_changes as (
    select
        audience,
        profile_id,
        is_on - coalesce(
            lag(is_on) over (
                partition by audience, profile_id, destination, member_key
                order by sent_order
            ),
            0
        ) as change,
        sent_order,
        sent_at
    from ad_sends
),

ad_lists as (
    select
        profile_id,
        change,
        sum(change) over (
            partition by audience, profile_id
            order by sent_order
            rows between unbounded preceding and current row
        ) as lists,
        sent_at
    from ad_changes
),

touches as (
    select profile_id
    from emails
    union all
    select profile_id
    from ad_lists
    where change = 1 and lists = 1 and sent_at >= :capped_since
)

select
    profile_id,
    count(*) as touches
from touches
group by profile_id
