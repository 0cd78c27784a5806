-- Addresses that more than one profile would be on the list with, and the one that is.
--
-- One row is an address. Key: member_key. Input: the waterfall before its last step.
select
    member_key,
    min(profile_id) as profile_id
from target.judged
where step is null
group by member_key
having count(*) > 1
