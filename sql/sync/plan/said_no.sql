-- Who has said no to this channel, and how: the one answer for a plan, for what of it cannot wait, and for a plan that
-- waited.
--
-- One row is a reason of a profile, or of somebody who was sent to this list (`member_key`). Key: none. Inputs:
-- core.suppressions, core.consents, and what tools have told since the last build (told.sql). Where identifiers are not
-- sent as they are, what these people are sent with comes to it as member keys without a profile (said_no_alike.sql).
--
-- Opted out, bounced, complained, erased: always, whatever the audience says. Consent that is merely missing is no no.
select
    profile_id,
    cast(null as text) as member_key,
    reason
from core.suppressions
where
    coalesce(channel, 'all') in (:channel, 'all')
    and reason in (:always_applied)
union all
select
    profile_id,
    cast(null as text) as member_key,
    'denied' as reason
from core.consents
where channel = :consent_channel and status = 'denied'
union all
select
    profile_id,
    member_key,
    reason
from target.told
where is_active and channel in (:channel, 'all')
