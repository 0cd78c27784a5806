-- materialized: work
-- Carts that a CRM or shop keeps itself.
--
-- One row is a cart of a source. Key: cart_key. Inputs: staging.carts, core.record_profiles.
-- The last activity is the record's own update time. Carts of nobody we could target are not here.
with carts as (
    select
        carts.source || ':' || carts.cart_id as cart_key,
        record_profiles.profile_id,
        carts.source,
        carts.cart_id,
        carts.status,
        carts.currency,
        carts.cart_url,
        carts.total_amount,
        coalesce(carts.created_at, carts.updated_at) as started_at,
        coalesce(carts.updated_at, carts.created_at) as last_activity_at
    from staging.carts as carts
    inner join core.record_profiles as record_profiles
        on
            record_profiles.record_kind = 'cart'
            and carts.source = record_profiles.source
            and carts.cart_id = record_profiles.record_id
)

select
    cart_key,
    profile_id,
    source,
    cart_id,
    status,
    currency,
    cart_url,
    total_amount,
    started_at,
    last_activity_at
from carts
where last_activity_at < :as_of
