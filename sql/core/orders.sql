-- Orders, once each, however many sources report them.
--
-- One row is a real order. Key: order_key (the transaction id, else '<source>:<order_id>').
-- Input: core.order_records, which says what records are the same order.
--
-- Rules a marketer asks about:
--   * `counts` (rule 10): every order but a cancelled one, a test, and one whose payment failed for good. Not yet
--     paid or later returned still counts. The newest version of each record speaks.
--   * A shop's or CRM's record stands over the web's for status, amount and currency; the web event says 'placed'.
--   * ordered_at is the earliest time any source gives.
--   * profile_id is the person. On a shared browser the order answers the browser's own profile too, see
--     core.order_profiles. Orders of nobody we could target are not here.
with records as (
    select
        record_key,
        order_key,
        source,
        order_id,
        transaction_id,
        profile_id,
        status,
        currency,
        total_amount,
        is_test,
        ordered_at,
        row_number() over (
            partition by order_key
            order by is_web asc, updated_at desc nulls last, record_key asc
        ) as fact_choice,
        row_number() over (
            partition by order_key
            order by
                case when status is null then 1 else 0 end asc,
                is_web asc,
                updated_at desc nulls last,
                record_key asc
        ) as status_choice,
        row_number() over (
            partition by order_key
            order by
                case when total_amount is null then 1 else 0 end asc,
                is_web asc,
                updated_at desc nulls last,
                record_key asc
        ) as amount_choice,
        row_number() over (
            partition by order_key
            order by
                case when profile_id is null then 1 else 0 end asc,
                profile_rank asc,
                is_web asc,
                updated_at desc nulls last,
                record_key asc
        ) as person_choice
    from core.order_records
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
        order_key,
        max(profile_id) filter (where person_choice = 1) as profile_id,
        max(order_id) filter (where fact_choice = 1) as order_id,
        max(transaction_id) as transaction_id,
        max(status) filter (where status_choice = 1) as status,
        max(currency) filter (where amount_choice = 1) as currency,
        max(total_amount) filter (where amount_choice = 1) as total_amount,
        bool_or(is_test) as is_test,
        min(ordered_at) as ordered_at
    from records
    group by order_key
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
where orders.profile_id is not null
