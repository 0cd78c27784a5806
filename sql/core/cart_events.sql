-- What people did with their carts on the web, and in which cart.
--
-- One row is a line of a cart event that was activity (a checkout without lines is one row without sku).
-- Key: profile_id, source, line_order. Inputs: core.events, core.event_items, core.cart_closings.
--
-- Rules a marketer asks about (7 and 8):
--   * The quantity of a sku never falls below zero: quantity_after = running sum - least(0, its running minimum).
--   * begin_checkout is activity, and its items are the cart while nothing has been added since the last reset.
--     A later checkout replaces them; what is added or removed afterwards changes them (`basis` tells which checkout).
--   * A remove without effect is no activity. It neither keeps a cart alive nor starts one.
--   * An order that counts starts an empty cart, and so does activity after more than the cart's lifetime of silence.
--
-- How: whether a remove has an effect depends on whether the cart was still alive, and that on the removes before.
-- Orders and silences of any cart event cut the past into stretches, with no doubt about what is in them. Within a
-- stretch the first silence between activities is found, what came before is settled and what comes after is judged
-- again from an empty cart. Nearly every stretch is settled in the first pass. All of it is by profile.
with recursive cart_lines as (
    select
        events.event_key,
        events.profile_id,
        events.source,
        events.event_name,
        events.page_location,
        events.currency,
        items.sku,
        items.name,
        items.image_url,
        items.product_url,
        coalesce(items.quantity, 0) as quantity,
        items.price,
        events.occurred_at,
        row_number() over (
            partition by events.profile_id, events.source
            order by
                events.occurred_at asc,
                -- At the same instant: first put in, then take out, then pay.
                case events.event_name when 'add_to_cart' then 1 when 'remove_from_cart' then 2 else 3 end asc,
                events.event_key asc,
                items.item_index asc
        ) as line_order
    from core.events as events
    left join core.event_items as items
        on events.event_key = items.event_key
    where
        events.event_name in ('add_to_cart', 'remove_from_cart', 'begin_checkout')
        and events.profile_id is not null
        and events.occurred_at < :as_of
        and (items.event_key is not null or events.event_name = 'begin_checkout')
),

silences as (
    select
        profile_id,
        source,
        line_order,
        occurred_at,
        lag(occurred_at) over (
            partition by profile_id, source
            order by line_order asc
        ) as previous_at
    from cart_lines
),

timeline as (
    select
        profile_id,
        source,
        line_order,
        occurred_at as happened_at,
        case when occurred_at > previous_at + :cart_lifetime then 1 else 0 end as cuts,
        0 as is_order
    from silences
    union all
    select
        profile_id,
        source,
        cast(null as bigint) as line_order,
        closes_until as happened_at,
        1 as cuts,
        1 as is_order
    from core.cart_closings
),

stretches as (
    -- An order closes what happened up to its own instant, so at the same time it comes last.
    select
        profile_id,
        source,
        line_order,
        sum(cuts) over (
            partition by profile_id, source
            order by happened_at asc, is_order asc, line_order asc
            rows between unbounded preceding and current row
        ) as stretch
    from timeline
),

judged as (
    select
        1 as pass,
        cart_lines.profile_id,
        cart_lines.source,
        cast(stretches.stretch as bigint) as stretch,
        cart_lines.line_order,
        min(cart_lines.line_order) over (
            partition by cart_lines.profile_id, cart_lines.source, cart_lines.event_key
        ) as event_order,
        cart_lines.event_name,
        cart_lines.sku,
        cart_lines.quantity,
        cast(0 as bigint) as basis,
        cast(0 as bigint) as quantity_after,
        cast(0 as bigint) as effect,
        false as is_activity,
        true as is_open_question,
        cart_lines.occurred_at
    from cart_lines
    inner join stretches
        on
            cart_lines.profile_id = stretches.profile_id
            and cart_lines.source = stretches.source
            and cart_lines.line_order = stretches.line_order
    union all
    (
        with pending as (
            select
                *,
                sum(case when event_name = 'add_to_cart' then quantity else 0 end) over (
                    partition by profile_id, source, stretch
                    order by line_order asc
                    rows between unbounded preceding and current row
                ) as added_so_far
            from judged
            where is_open_question
        ),

        based as (
            select
                *,
                event_name = 'begin_checkout' and quantity > 0 and added_so_far = 0 as is_basis,
                coalesce(
                    max(case
                        when event_name = 'begin_checkout' and quantity > 0 and added_so_far = 0 then event_order
                    end) over (
                        partition by profile_id, source, stretch
                        order by line_order asc
                        rows between unbounded preceding and current row
                    ),
                    0
                ) as new_basis
            from pending
        ),

        summed as (
            select
                *,
                sum(
                    case
                        when event_name = 'add_to_cart' or is_basis then quantity
                        when event_name = 'remove_from_cart' then -quantity
                        else 0
                    end
                ) over (
                    partition by profile_id, source, stretch, new_basis, sku
                    order by line_order asc
                    rows between unbounded preceding and current row
                ) as running_sum
            from based
        ),

        clamped as (
            select
                *,
                running_sum - least(
                    0,
                    min(running_sum) over (
                        partition by profile_id, source, stretch, new_basis, sku
                        order by line_order asc
                        rows between unbounded preceding and current row
                    )
                ) as new_quantity
            from summed
        ),

        changed as (
            select
                *,
                new_quantity - coalesce(lag(new_quantity) over (
                    partition by profile_id, source, stretch, new_basis, sku
                    order by line_order asc
                ), 0) as new_effect
            from clamped
        ),

        active as (
            select
                *,
                max(case when event_name = 'begin_checkout' or new_effect <> 0 then occurred_at end) over (
                    partition by profile_id, source, stretch
                    order by line_order asc
                    rows between unbounded preceding and 1 preceding
                ) as last_activity_at
            from changed
        ),

        cut as (
            select
                *,
                max(
                    case
                        when
                            (event_name = 'begin_checkout' or new_effect <> 0)
                            and occurred_at > last_activity_at + :cart_lifetime then 1
                        else 0
                    end
                ) over (
                    partition by profile_id, source, stretch
                    order by line_order asc
                    rows between unbounded preceding and current row
                ) as is_after_silence
            from active
        )

        select
            pass + 1 as pass,
            profile_id,
            source,
            stretch,
            line_order,
            event_order,
            event_name,
            sku,
            quantity,
            cast(new_basis as bigint) as basis,
            cast(new_quantity as bigint) as quantity_after,
            cast(new_effect as bigint) as effect,
            event_name = 'begin_checkout' or new_effect <> 0 as is_activity,
            is_after_silence = 1 as is_open_question,
            occurred_at
        from cut
    )
)

select
    judged.source || ':' || first_value(cart_lines.event_key) over (
        partition by judged.profile_id, judged.source, judged.stretch, judged.pass
        order by judged.line_order asc
        rows between unbounded preceding and current row
    ) as cart_key,
    judged.profile_id,
    judged.source,
    cart_lines.event_key,
    judged.event_name,
    cart_lines.page_location,
    cart_lines.currency,
    judged.sku,
    cart_lines.name,
    cart_lines.image_url,
    cart_lines.product_url,
    judged.line_order,
    judged.basis,
    judged.effect,
    judged.quantity_after,
    cart_lines.price,
    judged.occurred_at
from judged
inner join cart_lines
    on
        judged.profile_id = cart_lines.profile_id
        and judged.source = cart_lines.source
        and judged.line_order = cart_lines.line_order
where judged.is_activity and not judged.is_open_question
