-- Whom the destination refused for what she is there, so long ago that it may be otherwise by now.
--
-- One row is a member key. Key: member_key. Input: sync.ledger.
--
-- `:passing_refusals` are the reasons that are not about the row (unsubscribed, not confirmed yet, not on the list);
-- what counts is the newest refusal, and it holds until `:refused_before`.
select member_key
from sync.ledger
where audience = :audience and destination = :destination and status = 'rejected' and action <> 'remove'
group by member_key
having
    max(acknowledged_at) < :refused_before
    and arg_max(reason, sequence) in (:passing_refusals)
