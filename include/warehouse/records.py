"""How a record of a source is known again: what of a table of records new rows can change, and what is left alone.

Each table of records in staging takes from every raw table it reads the rows whose key is that of a new row. A key may
be shared by records that have nothing to do with each other (of two sources, say); it must never be another one for
two rows that are judged together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Records:
    """The key of a table's own rows, and that of the rows of each table it reads or follows, in DuckDB's dialect."""

    key: str
    of: Mapping[str, str]


_ORDER = "coalesce(tidy(order_id), known(tidy(transaction_id)))"
_EMAIL = "case when is_email(lower(tidy(email))) then lower(tidy(email)) end"

RECORDS: Mapping[str, Records] = {
    "staging.carts": Records("cart_id", {"raw.carts": "tidy(cart_id)"}),
    # A line belongs to the newest version of its cart, so a new version of the cart says which lines hold.
    "staging.cart_items": Records(
        "cart_id", {"raw.cart_items": "tidy(cart_id)", "raw.carts": "tidy(cart_id)", "staging.carts": "cart_id"}
    ),
    "staging.consents": Records(
        "coalesce(contact_id, email)", {"raw.consents": "coalesce(tidy(contact_id), lower(tidy(email)))"}
    ),
    "staging.contact_identifiers": Records(
        "contact_id", {"raw.contact_identifiers": "tidy(contact_id)", "raw.contacts": "tidy(contact_id)"}
    ),
    "staging.contacts": Records(
        "record_key",
        {"raw.contacts": f"coalesce(tidy(contact_id), {_EMAIL}, known(tidy(user_id)), dialled(tidy(phone)))"},
    ),
    "staging.engagement": Records("engagement_id", {"raw.engagement": "tidy(engagement_id)"}),
    "staging.orders": Records("order_id", {"raw.orders": _ORDER}),
    "staging.order_items": Records(
        "order_id", {"raw.order_items": "tidy(order_id)", "raw.orders": _ORDER, "staging.orders": "order_id"}
    ),
    "staging.subscriptions": Records("subscription_id", {"raw.subscriptions": "tidy(subscription_id)"}),
    "staging.suppressions": Records(
        "ltrim(lower(value), '@.')", {"raw.suppressions": "ltrim(lower(dialled(tidy(value))), '@.')"}
    ),
}
