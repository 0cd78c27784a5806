-- What people who have said no are sent with, in the form in which one destination wants one kind.
--
-- One row is an identifier. Key: identifier. Inputs: who said no (said_no.sql), core.identifiers. Run once for every kind
-- that the destination accepts; `as_sent` is that kind's way of writing it.
--
-- Two addresses can be one as they are sent: Google knows no dots in a Gmail address. Any no is a no then, so whoever
-- else would be sent with it is not. Only what belongs to people who said no is written.
with people as (
    select
        profile_id,
        min(reason) as reason
    from target.said_no
    where profile_id is not null
    group by profile_id
),

written as (
    select
        as_sent(identifiers.identifier_value) as identifier,
        people.reason
    from core.identifiers as identifiers
    inner join people
        on identifiers.profile_id = people.profile_id
    where
        identifiers.identifier_kind = :source_kind
        and coalesce(identifiers.state, 'alone') not in ('shared', 'quarantined')
)

select
    identifier,
    min(reason) as reason
from written
where identifier is not null
group by identifier
