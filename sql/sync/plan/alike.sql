-- Profiles that would be sent with an identifier of somebody who has said no, herself or another.
--
-- One row is a profile. Key: profile_id. Inputs: what was found (found.sql), said_no_alike.sql.
select distinct found.profile_id
from target.found as found
inner join target.said_no_alike as said_no_alike
    on found.identifier = said_no_alike.identifier
