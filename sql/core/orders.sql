-- materialized: incremental by profile_id
-- Orders, once each, however many sources report them.
--
-- One row is a real order. Key: order_key (the transaction id, else '<source>:<order_id>').
-- Input: core.order_records, which says what records are the same order.
--
-- Rules a marketer asks about:
--   * `counts` (rule 10): every order but a cancelled one, a test, and one whose payment failed for good. Not yet
--     paid or later returned still counts. The newest version of each record speaks.
--   * A refund, as a record with a negative amount or as an event, is no order and changes none.
--   * A shop's or CRM's record stands over the web's for status, amount and currency; the web event says 'placed'.
--   * ordered_at is the earliest time any source gives.
--   * profile_id is the person. On a shared browser the order answers the browser's own profile too, see
--     core.order_profiles. Orders of nobody we could target are not here.
with records as (
    select
        order_key,
        source,
        order_id,
        transaction_id,
        profile_id,
        status,
        currency,
        total_amount,
        is_test,
        profile_rank,
        ordered_at,
        -- The shop's or CRM's first, of those the newest.
        row_number() over (
            partition by order_key
            order by is_web asc, updated_at desc nulls last, record_key asc
        ) as choice
    from core.order_records
),

best_persons as (
    select
        order_key,
        min(profile_rank) as profile_rank
    from records
    where profile_id is not null
    group by order_key
),

-- Of each fact, the first record that tells it.
chosen as (
    select
        records.order_key,
        min(case when records.status is not null then records.choice end) as status_choice,
        min(case when records.total_amount is not null then records.choice end) as amount_choice,
        min(
            case
                when records.profile_id is not null and records.profile_rank = best_persons.profile_rank
                    then records.choice
            end
        ) as person_choice
    from records
    inner join best_persons
        on records.order_key = best_persons.order_key
    group by records.order_key
),

order_sources as (
    -- Distinct: a source is named once, however often it reports.
    select distinct
        order_key,
        source
    from records
),

source_lists as (
    select
        order_key,
        string_agg(source, ', ' order by source asc) as sources
    from order_sources
    group by order_key
),

orders as (
    select
        records.order_key,
        max(case when records.choice = chosen.person_choice then records.profile_id end) as profile_id,
        max(case when records.choice = 1 then records.order_id end) as order_id,
        max(records.transaction_id) as transaction_id,
        max(case when records.choice = chosen.status_choice then records.status end) as status,
        max(case when records.choice = coalesce(chosen.amount_choice, 1) then records.currency end) as currency,
        max(case when records.choice = chosen.amount_choice then records.total_amount end) as total_amount,
        bool_or(records.is_test) as is_test,
        min(records.ordered_at) as ordered_at
    from records
    inner join chosen
        on records.order_key = chosen.order_key
    group by records.order_key
)

select
    orders.order_key,
    orders.profile_id,
    orders.order_id,
    orders.transaction_id,
    source_lists.sources,
    orders.status,
    orders.currency,
    orders.total_amount,
    not orders.is_test and coalesce(orders.status not in ('cancelled', 'failed'), true) as counts,
    orders.ordered_at
from orders
inner join source_lists
    on orders.order_key = source_lists.order_key
