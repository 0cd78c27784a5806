-- Who has several identifiers of one kind: most people have one, and only the others are worth a choice.
--
-- One row is a number that stands for a profile (two profiles may share one), and a kind by its preference. Input: what
-- was found (found.sql).
with counted as (
    select
        key_hash(profile_id) as profile,
        preference
    from target.found
)

select
    profile,
    preference
from counted
group by profile, preference
having count(*) > 1
