-- materialized: work
-- What people did with their carts on the web, and in which cart.
--
-- One row is a line of a cart event that was activity (a checkout without lines is one row without sku).
-- Key: profile_id, source, line_order. Inputs: core.action_profiles, core.cart_closings.
--
-- Rules a marketer asks about (7 and 8):
--   * The quantity of a sku never falls below zero. `effect` is by how much a line changed it: what was really put in
--     or taken out; `took_the_last` says that nothing of the sku was left.
--   * begin_checkout is activity, and its items are the cart while nothing has been added since the last reset.
--     A later checkout replaces them; what is added or removed afterwards changes them (`basis` tells which checkout).
--   * A remove without effect is no activity. It neither keeps a cart alive nor starts one.
--   * An order that counts starts an empty cart, and so does activity after more than the cart's lifetime of silence.
--
-- How: orders and silences of any cart event cut the past into stretches. Where things were only added, or checked out
-- afterwards, a stretch is a cart, and every line has the effect it says. In the others whether a remove has an effect
-- depends on whether the cart was still alive, and that on the removes before: the first silence between activities
-- is found, what came before is settled and what comes after is judged again from an empty cart. Nearly every stretch
-- is settled in the first pass. All of it is by profile and source.
with recursive timeline as (
    select
        profile_id,
        source,
        event_key,
        event_name,
        page_location,
        currency,
        sku,
        item_index,
        coalesce(quantity, 0) as quantity,
        -- At the same instant: first put in, then take out, then check out, then order.
        case event_name when 'add_to_cart' then 1 when 'remove_from_cart' then 2 else 3 end as turn,
        occurred_at as happened_at
    from core.action_profiles
    where
        event_name in ('add_to_cart', 'remove_from_cart', 'begin_checkout')
        and (sku is not null or event_name = 'begin_checkout')
    union all
    select
        profile_id,
        source,
        cast(null as text) as event_key,
        cast(null as text) as event_name,
        cast(null as text) as page_location,
        cast(null as text) as currency,
        cast(null as text) as sku,
        cast(null as bigint) as item_index,
        0 as quantity,
        4 as turn,
        closes_until as happened_at
    from core.cart_closings
),

numbered as (
    select
        profile_id,
        source,
        event_key,
        event_name,
        page_location,
        currency,
        sku,
        item_index,
        quantity,
        turn,
        happened_at,
        row_number() over (
            partition by profile_id, source
            order by happened_at asc, turn asc, event_key asc, item_index asc
        ) as line_order,
        lag(turn) over (
            partition by profile_id, source
            order by happened_at asc, turn asc, event_key asc, item_index asc
        ) as previous_turn,
        lag(happened_at) over (
            partition by profile_id, source
            order by happened_at asc, turn asc, event_key asc, item_index asc
        ) as previous_at,
        lag(event_key) over (
            partition by profile_id, source
            order by happened_at asc, turn asc, event_key asc, item_index asc
        ) as previous_event_key
    from timeline
),

steps as (
    select
        profile_id,
        source,
        event_key,
        event_name,
        page_location,
        currency,
        sku,
        item_index,
        quantity,
        line_order,
        case
            when coalesce(previous_turn = 4 or happened_at > previous_at + :cart_lifetime, true) then line_order
        end as start_order,
        coalesce(event_key = previous_event_key, false) as goes_on,
        happened_at as occurred_at
    from numbered
    where turn < 4
),

cart_lines as (
    select
        profile_id,
        source,
        event_key,
        event_name,
        page_location,
        currency,
        sku,
        item_index,
        quantity,
        line_order,
        max(start_order) over (
            partition by profile_id, source
            order by line_order asc
            rows between unbounded preceding and current row
        ) as stretch,
        goes_on,
        occurred_at
    from steps
),

stretches as (
    select
        profile_id,
        source,
        stretch,
        max(case when line_order = stretch then event_key end) as first_event_key,
        bool_or(
            case event_name when 'add_to_cart' then quantity = 0 when 'remove_from_cart' then true else false end
        )
        or coalesce(
            min(case when event_name = 'begin_checkout' and quantity > 0 then line_order end)
            < coalesce(min(case when event_name = 'add_to_cart' then line_order end), 9223372036854775807),
            false
        ) as needs_judging
    from cart_lines
    group by profile_id, source, stretch
),

judged as (
    select
        1 as pass,
        cart_lines.profile_id,
        cart_lines.source,
        cart_lines.stretch,
        cart_lines.line_order,
        cart_lines.event_name,
        cart_lines.sku,
        cart_lines.quantity,
        cast(0 as bigint) as basis,
        cast(0 as bigint) as effect,
        cart_lines.goes_on,
        false as took_the_last,
        false as is_activity,
        true as is_open_question,
        cart_lines.occurred_at
    from cart_lines
    inner join stretches
        on
            cart_lines.profile_id = stretches.profile_id
            and cart_lines.source = stretches.source
            and cart_lines.stretch = stretches.stretch
    where stretches.needs_judging
    union all
    (
        with pending as (
            select
                *,
                sum(case when event_name = 'add_to_cart' then quantity else 0 end) over (
                    partition by profile_id, source, stretch
                    order by line_order asc
                    rows between unbounded preceding and current row
                ) as added_so_far,
                -- Where the event began whose line this is.
                max(case when goes_on then 0 else line_order end) over (
                    partition by profile_id, source, stretch
                    order by line_order asc
                    rows between unbounded preceding and current row
                ) as event_order
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

        wanted as (
            select
                *,
                case
                    when event_name = 'add_to_cart' or is_basis then quantity
                    when event_name = 'remove_from_cart' then -quantity
                    else 0
                end as wanted_effect
            from based
        ),

        summed as (
            select
                *,
                sum(wanted_effect) over (
                    partition by profile_id, source, stretch, new_basis, sku
                    order by line_order asc
                    rows between unbounded preceding and current row
                ) as running_sum
            from wanted
        ),

        -- The quantity is the running sum above the lowest it has been; a line that makes it lower still is cut short.
        clamped as (
            select
                *,
                least(0, min(running_sum) over (
                    partition by profile_id, source, stretch, new_basis, sku
                    order by line_order asc
                    rows between unbounded preceding and current row
                )) as lowest,
                least(0, coalesce(min(running_sum) over (
                    partition by profile_id, source, stretch, new_basis, sku
                    order by line_order asc
                    rows between unbounded preceding and 1 preceding
                ), 0)) as lowest_before
            from summed
        ),

        changed as (
            select
                *,
                wanted_effect + lowest_before - lowest as new_effect,
                running_sum - lowest as quantity_after
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
            event_name,
            sku,
            quantity,
            cast(new_basis as bigint) as basis,
            cast(new_effect as bigint) as effect,
            goes_on,
            new_effect < 0 and quantity_after = 0 as took_the_last,
            event_name = 'begin_checkout' or new_effect <> 0 as is_activity,
            is_after_silence = 1 as is_open_question,
            occurred_at
        from cut
    )
)

select
    cart_lines.source || ':' || stretches.first_event_key as cart_key,
    cart_lines.profile_id,
    cart_lines.source,
    cart_lines.event_key,
    cart_lines.event_name,
    cart_lines.page_location,
    cart_lines.currency,
    cart_lines.sku,
    cart_lines.item_index,
    cart_lines.line_order,
    cast(0 as bigint) as basis,
    case when cart_lines.event_name = 'add_to_cart' then cart_lines.quantity else 0 end as effect,
    false as took_the_last,
    cart_lines.occurred_at
from cart_lines
inner join stretches
    on
        cart_lines.profile_id = stretches.profile_id
        and cart_lines.source = stretches.source
        and cart_lines.stretch = stretches.stretch
where not stretches.needs_judging
union all
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
    cart_lines.item_index,
    judged.line_order,
    judged.basis,
    judged.effect,
    judged.took_the_last,
    judged.occurred_at
from judged
inner join cart_lines
    on
        judged.profile_id = cart_lines.profile_id
        and judged.source = cart_lines.source
        and judged.line_order = cart_lines.line_order
where judged.is_activity and not judged.is_open_question
