-- The identifiers of profiles that have several of one kind, and which of them stands for the member.
--
-- One row is an identifier. Key: profile_id, identifier. Inputs: core.identifiers, core.profiles, who has
-- several (crowded.sql), the target's state. Run once for every kind the destination accepts;
-- `as_sent` is that kind's way of writing it.
--
--   * `choice` 1 stands for the member: the profile's own best address first. Where a destination takes several
--     identifiers of a person, the one it knows her by already stays, so that a new address is no new member.
--   * An e-mail tool gets one address of a person (`:is_single`).
with people as (
    select profile_id
    from target.crowded
    where preference = :preference
),

written as (
    select
        identifiers.profile_id,
        as_sent(identifiers.identifier_value) as identifier,
        case
            when identifiers.identifier_value in (profiles.email, profiles.phone) then 1
            else 0
        end as is_best
    from core.identifiers as identifiers
    inner join people
        on identifiers.profile_id = people.profile_id
    left join core.profiles as profiles
        on identifiers.profile_id = profiles.profile_id
    where
        identifiers.identifier_kind = :source_kind
        and coalesce(identifiers.state, 'alone') not in ('shared', 'quarantined')
),

distinct_ones as (
    select
        profile_id,
        identifier,
        max(is_best) as is_best
    from written
    where identifier is not null
    group by profile_id, identifier
),

chosen as (
    select
        distinct_ones.profile_id,
        distinct_ones.identifier,
        row_number() over (
            partition by distinct_ones.profile_id
            order by
                case when :is_single then distinct_ones.is_best else 0 end desc,
                case when coalesce(state.is_present, false) then 1 else 0 end desc,
                distinct_ones.is_best desc,
                distinct_ones.identifier asc
        ) as choice
    from distinct_ones
    left join target.state as state
        on distinct_ones.identifier = state.member_key
)

select
    profile_id,
    :kind as kind,
    identifier,
    :preference as preference,
    choice
from chosen
where choice = 1 or not :is_single
