"""The steps of the DAG: honour what is open, and fail where something stays open, so that somebody sees it."""

from __future__ import annotations

from include.errors import TransientError
from include.warehouse.engine import get_warehouse


def honour() -> int:
    """Honour every open request; returns how many are done. TransientError while one stays open."""
    from include.privacy.honour import honour_requests

    honoured = honour_requests(get_warehouse())
    if honoured.still_open:
        raise TransientError(
            f"{honoured.still_open} erasures stay open and are tried again with the next run: "
            + "; ".join(honoured.reasons)
        )
    return honoured.done


def honour_leftovers() -> int:
    """Take who has said no off lists that no audience file names; returns how many. TransientError where one failed."""
    from include.sync.leftovers import honour_leftovers as take_off

    honoured = take_off(get_warehouse())
    if honoured.reasons:
        raise TransientError(
            f"{len(honoured.reasons)} lists that no audience file names any more could not be looked after: "
            + "; ".join(honoured.reasons)
        )
    return honoured.removed
