"""The size, match rate and freshness of a list, written down once a day and target for `reports.list_health`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.destinations.base import Destination, ListStats
from include.destinations.http import utc_now
from include.errors import NotSupported

if TYPE_CHECKING:
    from include.warehouse.engine import Warehouse


def record_stats(
    warehouse: Warehouse,
    destination: Destination,
    audience: str,
    list_id: str,
    *,
    listed: int | None,
    members: int,
) -> None:
    """Ask the platform for what it counts, and append it; `listed` is what was read back, `members` the ledger's."""
    try:
        told = destination.stats(list_id)
    except NotSupported:
        told = ListStats()
    now = utc_now()
    target: dict[str, Any] = {"audience": audience, "destination": destination.name}
    newest = warehouse.scalar(
        "select max(acknowledged_at) as newest from sync.ledger "
        "where audience = :audience and destination = :destination and status = 'accepted'",
        **target,
    )
    warehouse.insert(
        "sync.destination_stats",
        [
            {
                **target,
                "list_id": list_id,
                "day": now.date(),
                "size": told.size if told.size is not None else listed,
                "members": members,
                "match_rate": told.match_rate,
                "newest_change_at": newest,
                "recorded_at": now,
            }
        ],
    )
