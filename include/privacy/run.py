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
    """Let who has said no leave where no plan takes her off; returns how many did. TransientError where a list failed.

    That is on lists that no audience file names, and where her identifier was sent as somebody else's.
    """
    from include.sync.given_up import honour_given_up
    from include.sync.leftovers import honour_leftovers as take_off

    warehouse = get_warehouse()
    done = [take_off(warehouse), honour_given_up(warehouse)]
    reasons = [reason for one in done for reason in one.reasons]
    if reasons:
        raise TransientError(
            f"{len(reasons)} lists from which people who said no leave without a plan could not be looked after: "
            + "; ".join(reasons)
        )
    return sum(one.removed for one in done)
