-- Who has several identifiers of one kind: most people have one, and only the others are worth a choice.
--
-- One row is a profile and a kind, by its preference. Key: profile_id, preference. Input: what was found (found.sql).
-- Numbers are counted first, which costs less than counting texts.
with counted as (
    select
        profile_id,
        preference,
        key_hash(profile_id) as profile
    from target.found
),

several as (
    select
        profile,
        preference
    from counted
    group by profile, preference
    having count(*) > 1
)

select
    counted.profile_id,
    counted.preference
from counted
inner join several
    on
        counted.profile = several.profile
        and counted.preference = several.preference
group by counted.profile_id, counted.preference
having count(*) > 1
