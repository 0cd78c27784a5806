"""The three audiences as one would write them in pandas: read everything, join, group, and a loop for the carts.

python tests/benchmarks/segments_in_pandas.py build/shop 2020-07-19T01:00

This is a yardstick of `make bench-segments`, written to be right and readable, not to be slow: all of it is vectorised
but the net quantities in a cart, which depend on what came before. It keeps the rules of the shipped audiences with
their shipped parameters. It leaves out what the benchmark's shop does not have: dirty text, erasures, opt-outs at
tools, merged contacts, company domains, orders that are the same only by their amount, quarantined e-mails, tills, and
browsers or phones that met only each other.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

HOUR, DAY, MINUTE = pd.Timedelta(hours=1), pd.Timedelta(days=1), pd.Timedelta(minutes=1)
CART_LIFETIME, CLOCK_TOLERANCE, SESSION_GAP = 7 * DAY, MINUTE, 30 * MINUTE
QUARANTINE_ABOVE, BOT_PAGE_VIEWS = 10, 100
BOT_AGENTS = r"bot|crawl|spider|headless|^curl|^wget|^python"
CART_EVENTS = {"add_to_cart": 1, "remove_from_cart": 2, "begin_checkout": 3}
STRONG = ("contact", "user", "email")
EVENT_COLUMNS = [
    "source", "event_key", "event_name", "visitor_id", "user_id", "email", "session_id", "transaction_id", "currency",
    "value", "browser", "traffic_type", "engagement_ms", "is_engaged", "occurred_at", "loaded_at",
]  # fmt: skip


def newest(rows: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The newest version of every record."""
    return rows.sort_values(["updated_at", "loaded_at"]).drop_duplicates(key, keep="last")


@dataclass
class Raw:
    """What was loaded, every record once."""

    events: pd.DataFrame
    items: pd.DataFrame
    contacts: pd.DataFrame
    consents: pd.DataFrame
    orders: pd.DataFrame
    subscriptions: pd.DataFrame
    engagement: pd.DataFrame
    carts: pd.DataFrame


def read(folder: Path) -> Raw:
    """Read the Parquet files and keep the newest version of each row."""
    events = pd.read_parquet(folder / "events", columns=EVENT_COLUMNS)
    events = events.sort_values("loaded_at").drop_duplicates("event_key", keep="last", ignore_index=True)
    items = pd.read_parquet(folder / "event_items", columns=["event_key", "item_index", "sku", "quantity", "loaded_at"])
    items = items.sort_values("loaded_at").drop_duplicates(["event_key", "item_index"], keep="last")
    items["quantity"] = items.quantity.fillna(1)
    contacts = newest(pd.read_parquet(folder / "contacts"), ["source", "contact_id"])
    contacts = contacts[~contacts.is_deleted]
    carts = newest(pd.read_parquet(folder / "carts"), ["source", "cart_id"])
    engagement = pd.read_parquet(folder / "engagement")
    raw = Raw(
        events=events,
        items=items,
        contacts=contacts,
        consents=pd.read_parquet(folder / "consents"),
        orders=newest(pd.read_parquet(folder / "orders"), ["source", "order_id"]),
        subscriptions=newest(pd.read_parquet(folder / "subscriptions"), ["source", "subscription_id"]),
        engagement=engagement,
        carts=carts[carts.status != "deleted"],
    )
    for table in (raw.contacts, raw.consents, raw.orders):
        table["contact"] = table.source + ":" + table.contact_id
    return raw


# Who is who


@dataclass
class People:
    """The profile of every identifier (a number), by kind; a quarantined browser or phone has none."""

    profile: dict[str, pd.Series]
    joined: dict[str, pd.Index]

    def of(self, rows: pd.DataFrame, **columns: str) -> pd.Series:
        """The profile of each row by the first of these identifiers that has one (kind=column, best first)."""
        found = pd.Series(np.nan, index=rows.index)
        for kind, column in columns.items():
            found = found.where(found.notna(), rows[column].map(self.profile[kind]))
        return found


def identify(raw: Raw) -> People:
    """Join strong identifiers (contact, login, e-mail) that were seen together, then judge browsers and phones."""
    purchases = raw.events.loc[raw.events.event_name == "purchase"].dropna(subset=["transaction_id"])
    bought = purchases[["transaction_id", "visitor_id", "user_id", "email"]].merge(
        raw.orders[["transaction_id", "user_id", "email", "visitor_id"]], on="transaction_id", suffixes=("", "_shop")
    )
    kinds = {
        "user_id": "user", "user_id_shop": "user", "email": "email", "email_shop": "email", "contact": "contact",
        "visitor_id": "visitor", "visitor_id_shop": "visitor", "phone": "phone",
    }  # fmt: skip
    seen = [
        raw.events[["visitor_id", "user_id", "email"]].drop_duplicates(),
        bought.drop(columns="transaction_id"),
        raw.contacts[["contact", "user_id", "email", "phone"]],
        raw.consents[["contact", "email"]].drop_duplicates(),
        raw.orders[["contact", "user_id", "email", "phone", "visitor_id"]],
        raw.subscriptions[["user_id", "email"]],
        raw.engagement[["email"]].drop_duplicates(),
        raw.carts[["user_id", "email"]],
    ]
    values: dict[str, list[pd.Series]] = {}
    links: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for rows in seen:
        columns = [column for column in kinds if column in rows]
        for number, one in enumerate(columns):
            values.setdefault(kinds[one], []).append(rows[one].dropna())
            for other in columns[number + 1 :]:
                pair = rows[[one, other]].dropna().drop_duplicates().set_axis(["a", "b"], axis=1)
                links.setdefault((kinds[one], kinds[other]), []).append(pair)
    known = {kind: pd.Index(pd.concat(found).unique()) for kind, found in values.items()}

    # Strong identifiers are the nodes of a graph, and a profile is what hangs together.
    first = dict(zip(STRONG, np.cumsum([0, *(len(known[kind]) for kind in STRONG)]), strict=False))
    node = {kind: pd.Series(np.arange(len(known[kind])) + first[kind], index=known[kind]) for kind in STRONG}
    size = sum(len(known[kind]) for kind in STRONG)
    edges = [
        np.stack([pairs.a.map(node[one]).to_numpy(), pairs.b.map(node[other]).to_numpy()])
        for (one, other), found in links.items()
        if one in STRONG and other in STRONG
        for pairs in [pd.concat(found)]
    ]
    a, b = np.concatenate(edges, axis=1)
    count, component = connected_components(coo_matrix((np.ones(len(a)), (a, b)), shape=(size, size)), directed=False)
    profile = {kind: pd.Series(component[numbers], index=numbers.index) for kind, numbers in node.items()}

    # A browser or phone belongs to the only profile it met; one that met none or several has a profile of its own.
    joined = {}
    for weak in ("visitor", "phone"):
        met = pd.concat(
            pd.DataFrame({"weak": pairs[mine], "profile": pairs[other].map(profile[strong])})
            for (one, two), found in links.items()
            if weak in (one, two) and (one in STRONG or two in STRONG)
            for strong, mine, other in [(two, "a", "b") if one == weak else (one, "b", "a")]
            for pairs in [pd.concat(found)]
        ).drop_duplicates()
        meetings = met.groupby("weak").profile.agg(["size", "first"])
        own = pd.Series(np.arange(len(known[weak])) + count, index=known[weak], dtype=float)
        count += len(own)
        single = meetings.loc[meetings["size"] == 1, "first"].astype(float)
        own.loc[single.index] = single
        own.loc[meetings.index[meetings["size"] > QUARANTINE_ABOVE]] = np.nan
        profile[weak], joined[weak] = own, single.index
    return People(profile, joined)


# What they did


def add_profiles_and_visits(raw: Raw, people: People) -> None:
    """Give every event its profile and its visit."""
    events = raw.events
    events["profile"] = people.of(events, user="user_id", email="email", visitor="visitor_id")
    loose = events.loc[events.session_id.isna(), ["visitor_id", "occurred_at", "event_key"]]
    loose = loose.sort_values(["visitor_id", "occurred_at", "event_key"])
    silence = loose.occurred_at - loose.groupby("visitor_id").occurred_at.shift()
    number = (~(silence <= SESSION_GAP)).groupby(loose.visitor_id).cumsum()
    events["visit"] = events.visitor_id + "." + events.session_id.fillna("gap" + number.astype(str))
    raw.events = events.dropna(subset=["profile"])


def visits_of(events: pd.DataFrame) -> pd.DataFrame:
    """One row per visit and profile: when, how engaged, and whether a machine did it."""
    timed_sources = events.loc[events.engagement_ms.notna(), "source"].unique()
    agents = pd.Series(events.browser.dropna().unique())
    bot_agents = agents[agents.str.lower().str.contains(BOT_AGENTS)]
    views = events[events.event_name == "page_view"].sort_values(["profile", "visitor_id", "occurred_at", "event_key"])
    burst_began_at = views.groupby(["profile", "visitor_id"]).occurred_at.shift(BOT_PAGE_VIEWS - 1)
    bursts = views.index[views.occurred_at - burst_began_at <= MINUTE]
    marked = pd.DataFrame(
        {
            "visit": events.visit,
            "profile": events.profile,
            "occurred_at": events.occurred_at,
            "page_views": events.event_name == "page_view",
            "product_views": events.event_name == "view_item",
            "engagement_ms": events.engagement_ms,
            "is_timed": events.source.isin(timed_sources),
            "is_flagged": events.is_engaged.astype("boolean").fillna(False),
            "is_bot": events.browser.isin(bot_agents) | events.index.isin(bursts),
        }
    )
    visits = marked.groupby(["visit", "profile"], as_index=False).agg(
        started_at=("occurred_at", "min"),
        ended_at=("occurred_at", "max"),
        page_views=("page_views", "sum"),
        product_views=("product_views", "sum"),
        engagement_ms=("engagement_ms", "sum"),
        is_timed=("is_timed", "max"),
        is_flagged=("is_flagged", "max"),
        is_bot=("is_bot", "max"),
    )
    seconds = (visits.ended_at - visits.started_at).dt.total_seconds()
    seconds = seconds.where(~visits.is_timed, visits.engagement_ms.astype(float) / 1000)
    visits["is_engaged"] = (
        visits.is_flagged | (seconds >= 10) | (visits.page_views >= 2) | (visits.product_views >= 1)
    ).astype(bool)
    return visits


def orders_of(raw: Raw, people: People) -> pd.DataFrame:
    """One row per order that counts and profile it answers, with each source's own time of it."""
    web = raw.events.loc[raw.events.event_name == "purchase"]
    web = pd.DataFrame(
        {
            "source": web.source,
            "order": web.transaction_id,
            "visitor_id": web.visitor_id,
            "profile": web.profile,
            "currency": web.currency,
            "total_amount": web.value,
            "ordered_at": web.occurred_at,
        }
    ).sort_values("ordered_at")
    shop = raw.orders.assign(
        order=raw.orders.transaction_id.fillna(raw.orders.source + ":" + raw.orders.order_id),
        profile=people.of(
            raw.orders, contact="contact", user="user_id", email="email", visitor="visitor_id", phone="phone"
        ),
    )
    # Without a number the shop's order of the same profile and amount within ten minutes is the same.
    unnumbered = shop[shop.transaction_id.isna()].dropna(subset=["profile"]).sort_values("ordered_at")
    same = ["profile", "currency", "total_amount"]
    nearest = pd.merge_asof(
        web[[*same, "ordered_at"]], unnumbered[[*same, "ordered_at", "order"]],
        on="ordered_at", by=same, direction="nearest", tolerance=10 * MINUTE,
    )["order"]  # fmt: skip
    web["order"] = web.order.fillna(nearest.set_axis(web.index)).fillna(web.source + ":" + web.index.astype(str))
    refused = shop[shop.status.isin(["cancelled", "failed"]) | shop.is_test].order
    records = pd.concat([web, shop])
    records = records[~records.order.isin(refused)]
    named = records.dropna(subset=["profile"])
    answered = [named[["order", "profile"]]]
    for kind, column in {
        "contact": "contact", "user": "user_id", "email": "email", "visitor": "visitor_id", "phone": "phone"
    }.items():  # fmt: skip
        answered.append(pd.DataFrame({"order": named.order, "profile": named[column].map(people.profile[kind])}))
    pairs = pd.concat(answered).dropna().drop_duplicates()
    own_times = records.groupby(["order", "source"]).ordered_at.min().unstack()
    return pairs.join(own_times.assign(ordered_at=own_times.min(axis=1)), on="order")


def last_carts(raw: Raw, people: People, orders: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    """The last cart of every profile and source."""
    events = raw.events.loc[raw.events.event_name.isin(CART_EVENTS)]
    lines = events[["profile", "source", "event_key", "event_name", "occurred_at"]].merge(
        raw.items[["event_key", "item_index", "sku", "quantity"]], on="event_key"
    )
    lines["is_order"] = 0
    lines["rank"] = lines.event_name.map(CART_EVENTS)
    sources = [*events.source.unique(), "shop"]
    closings = pd.concat(
        pd.DataFrame(
            {
                "profile": orders.profile,
                "source": source,
                "occurred_at": orders[source].fillna(orders.ordered_at + CLOCK_TOLERANCE),
            }
        )
        for source in sources
    )
    timeline = pd.concat([lines, closings.assign(is_order=1)])
    timeline = timeline.sort_values(["profile", "source", "occurred_at", "is_order", "rank", "event_key", "item_index"])

    carts = []
    columns = ["profile", "source", "event_name", "event_key", "sku", "quantity", "occurred_at", "is_order"]
    owner: tuple[float, str] | None = None
    cart: dict[str, Any] = {}
    for profile, source, event, key, sku, quantity, occurred_at, is_order in zip(
        *(timeline[column].array for column in columns), strict=True
    ):
        if (profile, source) != owner:
            owner, cart = (profile, source), {}
        if is_order:
            # A new cart begins with the next activity.
            if cart:
                cart["is_open"] = False
            continue
        fresh = not cart or not cart["is_open"] or occurred_at - cart["last_activity_at"] > CART_LIFETIME
        held = {} if fresh else cart["held"]
        if event == "remove_from_cart" and held.get(sku, 0) == 0:
            continue
        if fresh:
            cart = {"profile": profile, "source": source, "held": held, "added": False, "basis": None, "is_open": True}
            carts.append(cart)
        if event == "add_to_cart":
            held[sku] = held.get(sku, 0) + quantity
            cart["added"] = True
        elif event == "remove_from_cart":
            held[sku] = max(0, held[sku] - quantity)
        elif not cart["added"]:
            if cart["basis"] != key:
                held.clear()
                cart["basis"] = key
            held[sku] = held.get(sku, 0) + quantity
        cart["last_activity_at"] = occurred_at
    web = pd.DataFrame(carts, columns=["profile", "source", "held", "is_open", "last_activity_at"])
    web["is_open"] &= web.held.map(lambda held: any(held.values()))

    shop = raw.carts.assign(
        profile=people.of(raw.carts, user="user_id", email="email"), last_activity_at=raw.carts.updated_at
    ).dropna(subset=["profile"])
    closed = closings[closings.source == "shop"].groupby("profile").occurred_at.max()
    is_closed = shop.profile.map(closed) >= shop.last_activity_at
    shop["is_open"] = (shop.status == "open") & ~is_closed & (shop.total_amount > 0)
    both = pd.concat([web, shop])[["profile", "source", "is_open", "last_activity_at"]]
    both = both.sort_values("last_activity_at").drop_duplicates(["profile", "source"], keep="last")
    both["is_open"] &= both.last_activity_at >= as_of - CART_LIFETIME
    return both


# Who is in


def cart_abandoners(carts: pd.DataFrame, as_of: pd.Timestamp) -> pd.Series:
    """Latest cart open and untouched for an hour to seven days."""
    # At the same instant a closed cart stands over an open one.
    latest = carts.sort_values(["last_activity_at", "is_open"], ascending=[True, False])
    latest = latest.drop_duplicates("profile", keep="last")
    is_in = latest.is_open & (latest.last_activity_at >= as_of - 7 * DAY) & (latest.last_activity_at < as_of - HOUR)
    return latest.profile[is_in]


def subscriptions_of(raw: Raw, people: People, as_of: pd.Timestamp) -> pd.DataFrame:
    """Paid plans, and consents to e-mail as e-mail subscriptions."""
    plans = raw.subscriptions.assign(profile=people.of(raw.subscriptions, user="user_id", email="email"))
    is_over = plans.status.isin(["cancelled", "expired", "failed"])
    plans["ended_at"] = plans.ended_at.fillna(plans.cancelled_at.fillna(plans.updated_at).where(is_over))
    plans["is_running"] = plans.ended_at.isna() | (plans.ended_at >= as_of) | (plans.status == "past_due")

    answers = raw.consents[raw.consents.channel == "email"]
    answers = answers.assign(profile=people.of(answers, contact="contact", email="email"))
    broken_at = answers.contact.map(answers[answers.status != "granted"].groupby("contact").changed_at.max())
    answers["broken_at"] = broken_at
    granted = answers[answers.status == "granted"].assign(
        since=lambda rows: rows.changed_at.where(rows.broken_at.isna() | (rows.changed_at > rows.broken_at))
    )
    letters = granted.groupby("contact").agg(
        profile=("profile", "first"),
        since=("since", "min"),
        first_at=("changed_at", "min"),
        ended_at=("broken_at", "max"),
    )
    letters["started_at"] = letters.since.fillna(letters.first_at)
    letters["is_running"] = letters.since.notna()
    letters["kind"] = "email"
    columns = ["profile", "kind", "is_running", "started_at", "ended_at"]
    return pd.concat([plans[columns], letters[columns]]).dropna(subset=["profile"])


def lapsed_subscribers(
    raw: Raw,
    people: People,
    visits: pd.DataFrame,
    orders: pd.DataFrame,
    subscriptions: pd.DataFrame,
    as_of: pd.Timestamp,
) -> pd.Series:
    """A paid plan ended 7 to 365 days ago and nothing followed, or silent on the newsletter for 90 days."""
    plans = subscriptions[subscriptions.kind == "paid"]
    running = plans[plans.is_running].profile
    ended = plans[~plans.is_running & (plans.ended_at < as_of)]
    last_end = ended.groupby("profile").ended_at.max()
    last_start = plans.groupby("profile").started_at.max()
    is_expired = (last_end >= as_of - 365 * DAY) & (last_end < as_of - 7 * DAY)
    is_expired &= ~last_end.index.isin(running) & ~(last_start.reindex(last_end.index) >= last_end)
    expired = last_end.index[is_expired]

    letters = subscriptions[(subscriptions.kind == "email") & subscriptions.is_running]
    subscribed_at = letters.groupby("profile").started_at.min()
    touches = raw.engagement[raw.engagement.type.isin(["open", "click"]) & ~raw.engagement.is_bot]
    signs = pd.concat(
        [
            touches.groupby(people.of(touches, email="email")).occurred_at.max(),
            visits[~visits.is_bot].groupby("profile").ended_at.max(),
            orders.groupby("profile").ordered_at.max(),
        ]
    )
    last_sign = signs.groupby(level=0).max().reindex(subscribed_at.index)
    answers = raw.consents[raw.consents.channel == "email"].sort_values("changed_at")
    answers = answers.drop_duplicates("contact", keep="last")
    denied = people.of(answers, contact="contact", email="email")[answers.status == "denied"]
    is_silent = (subscribed_at <= as_of - 90 * DAY) & ~(last_sign >= as_of - 90 * DAY)
    is_silent &= ~subscribed_at.index.isin(running) & ~subscribed_at.index.isin(denied)
    return pd.Series(expired.union(subscribed_at.index[is_silent]))


def non_converting_visitors(
    raw: Raw,
    people: People,
    visits: pd.DataFrame,
    orders: pd.DataFrame,
    subscriptions: pd.DataFrame,
    as_of: pd.Timestamp,
) -> pd.Series:
    """An engaged visit in the last 30 days, and no conversion since the first of them."""
    recent = visits[
        visits.is_engaged & (visits.ended_at >= as_of - 30 * DAY) & (visits.ended_at <= as_of - 30 * MINUTE)
    ]
    first = recent.groupby("profile").started_at.min()
    leads = raw.events[raw.events.event_name.isin(["generate_lead", "sign_up"])]
    contacts = raw.contacts.assign(profile=people.of(raw.contacts, contact="contact", user="user_id", email="email"))
    conversions = pd.concat(
        [
            leads.groupby("profile").occurred_at.max(),
            orders.groupby("profile").ordered_at.max(),
            # A profile was created in the CRM with its first contact.
            contacts.groupby("profile").created_at.min(),
            subscriptions.groupby("profile").started_at.max(),
        ]
    )
    last = conversions.groupby(level=0).max().reindex(first.index)
    return pd.Series(first.index[~(last >= first)])


def audiences(folder: Path, moment: datetime) -> tuple[dict[str, set[float]], People]:
    """The profiles of each audience."""
    as_of = pd.Timestamp(moment)
    raw = read(folder)
    people = identify(raw)
    add_profiles_and_visits(raw, people)
    visits = visits_of(raw.events)
    orders = orders_of(raw, people)
    carts = last_carts(raw, people, orders, as_of)
    subscriptions = subscriptions_of(raw, people, as_of)
    nobody = {
        *visits.loc[visits.is_bot, "profile"],
        *raw.events.loc[raw.events.traffic_type == "internal", "profile"],
    }
    found = {
        "cart_abandoners": cart_abandoners(carts, as_of),
        "lapsed_subscribers": lapsed_subscribers(raw, people, visits, orders, subscriptions, as_of),
        "non_converting_visitors": non_converting_visitors(raw, people, visits, orders, subscriptions, as_of),
    }
    return {name: set(profiles) - nobody for name, profiles in found.items()}, people


def main() -> None:
    """Print the sizes of the audiences and the time they took."""
    began = time.perf_counter()
    found, _ = audiences(Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]))
    for name, profiles in found.items():
        print(f"{name:<24} {len(profiles):>10,}")
    print(f"{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
