-- Addresses that more than one profile would be on the list with, and the one that is.
--
-- One row is an address. Key: member_key. Input: the waterfall before its last step. Not asked where an identifier of
-- ours is sent as it is. Hardly any is there twice, so numbers are counted first, which costs less than counting texts.
with members as (
    select
        profile_id,
        member_key,
        key_hash(member_key) as member
    from target.judged
    where step is null
),

several as (
    select member
    from members
    group by member
    having count(*) > 1
)

select
    members.member_key,
    min(members.profile_id) as profile_id
from members
inner join several
    on members.member = several.member
group by members.member_key
having count(*) > 1
