-- Everything that leavers were sent with since they came in, as it was sent.
--
-- One row is a text of identifiers. Key: member_key, identifiers. Inputs: the leavers, sync.ledger. Of the leavers who
-- can wait, the first `:held` in turn do and are not here. `marks` counts the quotation marks in the text.
with leavers as (
    select
        member_key,
        last_removed
    from target.leavers
    where not can_wait or turn > :held
),

sendings as (
    select
        ledger.member_key,
        leavers.last_removed,
        max(ledger.identifiers) as identifiers,
        arg_max(ledger.status, ledger.sequence) as status,
        min(ledger.sequence) as sent_order
    from sync.ledger as ledger
    inner join leavers
        on ledger.member_key = leavers.member_key
    where
        ledger.audience = :audience
        and ledger.destination = :destination
        and ledger.action <> 'remove'
    group by ledger.member_key, leavers.last_removed, ledger.plan_id, ledger.action
),

texts as (
    select distinct
        member_key,
        coalesce(identifiers, '{"' || :key_kind || '":["' || json_escaped(member_key) || '"]}') as identifiers
    from sendings
    where status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown') and sent_order > last_removed
)

select
    member_key,
    identifiers,
    length(identifiers) - length(replace(identifiers, '"', '')) as marks
from texts
