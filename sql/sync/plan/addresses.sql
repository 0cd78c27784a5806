-- What stands for each profile at a destination that takes several kinds of identifiers, and all of hers as one text.
--
-- One row is a profile. Key: profile_id. Inputs: the identifiers that are the only one of their kind, and those of who
-- has several of a kind. `member_key` is her identifier of the most preferred kind; `listed_kinds` is written out by
-- include/sync/payload.py, and equal identifiers have an equal text.
with kinds as (
    select
        profile_id,
        kind,
        preference,
        identifier as member_key,
        identifier as listed
    from target.alone
    union all
    select
        profile_id,
        kind,
        preference,
        max(identifier) filter (where choice = 1) as member_key,
        string_agg(identifier, ',' order by identifier) as listed
    from target.several
    group by profile_id, kind, preference
)

select
    profile_id,
    arg_min(member_key, preference) as member_key,
    listed_kinds() as identifiers
from kinds
group by profile_id
