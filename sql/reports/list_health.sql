-- How large each list is, how many of its members the platform knows, how fresh it is, and what its audit found, by day.
--
-- materialized: view
--
-- One row is a list on a day. Key: audience, destination, day. Inputs: sync.destination_stats, sync.audits.
--
--   * `size` is what the platform counts or estimates; `members` is what it acknowledged to us. Ad platforms round, and
--     tell nothing until a list is large enough.
--   * `newest_change_at` is the newest change that was accepted: how fresh the list was at `recorded_at`.
--   * `lost`, `returned` and `strangers` are null where a platform does not let its lists be read back.
with stats as (
    select
        audience,
        destination,
        day,
        size,
        members,
        match_rate,
        newest_change_at,
        recorded_at
    from sync.destination_stats
    qualify
        row_number() over (
            partition by audience, destination, day
            order by recorded_at desc
        ) = 1
),

audits as (
    select
        audience,
        destination,
        lost,
        returned,
        strangers,
        cast(began_at as date) as day
    from sync.audits
    where outcome = 'compared'
    qualify
        row_number() over (
            partition by audience, destination, cast(began_at as date)
            order by audited_at desc
        ) = 1
)

select
    stats.audience,
    stats.destination,
    stats.size,
    stats.members,
    audits.lost,
    audits.returned,
    audits.strangers,
    stats.match_rate,
    stats.day,
    stats.newest_change_at,
    stats.recorded_at
from stats
left join audits
    on
        stats.audience = audits.audience
        and stats.destination = audits.destination
        and stats.day = audits.day
