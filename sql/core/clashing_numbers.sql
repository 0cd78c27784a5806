-- A row is an order number under which two shops, tills or CRMs know two orders.
-- Key: transaction_id.
-- materialized: work
-- Inputs: staging.orders.
-- Rules (5): records with one number are one order. But two shops may both count from 1000. So a number says nothing when
-- another source knows it of another login or e-mail, and with another amount or more than a day apart. One login or one
-- e-mail on all of the records, or no contradiction in amount and time, is one order.
-- node is the number as in core.record_nodes.
with orders as (
    select
        source,
        transaction_id,
        user_id,
        email,
        currency,
        round(total_amount * 1000) as amount_in_thousandths,
        ordered_at
    from staging.orders
    where
        ordered_at < :as_of
        and lower(transaction_id) not in ('(not set)', '<other>')
        and touched_node(
            coalesce(
                '1:' || source || ':' || contact_id,
                '2:' || user_id,
                '3:' || email,
                '5:' || visitor_id,
                case when phone like '+%' then '4:' || phone end,
                '6:' || transaction_id
            )
        )
),

told_by_two as (
    select transaction_id
    from orders
    group by transaction_id
    having min(source) <> max(source)
),

compared as (
    select
        orders.transaction_id,
        min(orders.user_id) <> max(orders.user_id) or min(orders.email) <> max(orders.email) as has_two_people,
        count(orders.user_id) = count(*) and min(orders.user_id) = max(orders.user_id) as has_one_login,
        count(orders.email) = count(*) and min(orders.email) = max(orders.email) as has_one_email,
        min(orders.currency) = max(orders.currency)
        and min(orders.amount_in_thousandths) <> max(orders.amount_in_thousandths) as has_two_amounts,
        max(orders.ordered_at) > min(orders.ordered_at) + interval '1 day' as has_two_days
    from orders
    inner join told_by_two
        on orders.transaction_id = told_by_two.transaction_id
    group by orders.transaction_id
)

select
    transaction_id,
    '6:' || transaction_id as node
from compared
where
    coalesce(has_two_people, false)
    and not coalesce(has_one_login, false)
    and not coalesce(has_one_email, false)
    and (coalesce(has_two_amounts, false) or coalesce(has_two_days, false))
