-- A row is an e-mail, phone or browser that would join too many profiles, and how many: the report of rule 3.
-- Key: identifier_kind, identifier_value.
-- materialized: view
-- Inputs: core.identifiers.
select
    identifier_kind,
    identifier_value,
    joins
from core.identifiers
where state = 'quarantined'
