"""Honouring requests: who is meant, out of the warehouse, off every list, and a receipt.

The order is what makes it safe to die anywhere and to run beside a sync: her hashes first (no import brings her back),
then everything a plan could be made of, stored plans included (no plan brings her back), then the lists, by the
ledger, which is what still knows where she is; and when every destination has let her go, the ledger. A request
that cannot be finished stays open, says why, and goes on with the next run.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.destinations.base import Connect, get_destination
from include.destinations.http import utc_now
from include.privacy.lists import Farewell, take_off
from include.privacy.person import block, gather, gather_imported_again, run
from include.privacy.purge import delete_rows, keep_opt_outs, strike_out
from include.privacy.requests import collect_requests, open_requests
from include.settings import get_settings

if TYPE_CHECKING:
    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

LONGEST_BUILD = timedelta(hours=6)
_FAR = {"ambiguous": "the identifier is of several people (shared, or in quarantine); name one that is hers alone"}


@dataclass(frozen=True)
class Honoured:
    """What one run did, in requests; `rows` are those deleted from the warehouse."""

    done: int = 0
    ambiguous: int = 0
    still_open: int = 0
    rows: int = 0
    reasons: tuple[str, ...] = ()


def honour_requests(warehouse: Warehouse, connect: Connect = get_destination) -> Honoured:
    """Bring every open request as far as it goes now. Nothing to do: nothing is written."""
    from filelock import FileLock

    warehouse.ensure_tables()
    folder = get_settings().state_dir
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "erasures.lock"):
        if left_over := _left_over(warehouse):
            _forget_keys(warehouse, left_over)
        collect_requests(warehouse)
        requests = open_requests(warehouse)
        building = _is_building(warehouse)
        meant = []
        ambiguous = 0
        for request in requests:
            with warehouse.session() as session:
                if gather(warehouse, session, request["request_id"]) == "found":
                    block(warehouse, session, request["request_id"], request["requested_at"])
                    meant.append(request)
                    continue
            ambiguous += 1
            _receipt(warehouse, request, "request", Farewell("ambiguous", detail=_FAR["ambiguous"]))
            _forget_keys(warehouse, [request["request_id"]])
        again = _keep_out(warehouse)  # now that whoever is meant has been found: it deletes what tells
        if not requests:
            logger.info("no erasure is open")
            return Honoured(rows=again)
        ids = [str(request["request_id"]) for request in meant]
        logger.info("%s erasures are open; deleting from the warehouse", len(ids))
        with warehouse.session() as session:
            rows = delete_rows(warehouse, session, ids, ledger=False) if ids else 0
        logger.info("deleted %s rows; taking them off the lists", rows)
        farewells = take_off(warehouse, ids, connect) if ids else {}
        done, reasons = [], set()
        for request in meant:
            mine = {name: farewell for (wanted, name), farewell in farewells.items() if wanted == request["request_id"]}
            why = sorted({f"{name}: {one.detail}" for name, one in mine.items() if one.outcome == "open"})
            if building:
                why.append("a build is under way and may still hold rows of hers")
            for name, farewell in sorted(mine.items()):
                _receipt(warehouse, request, name, farewell)
            together = f"counted for {len(ids)} requests together" if len(ids) > 1 else ""
            outcome = "open" if building else "erased"
            _receipt(warehouse, request, "warehouse", Farewell(outcome, 0, rows, True, together))
            if why:
                reasons |= set(why)
                _receipt(warehouse, request, "request", Farewell("open", detail="; ".join(why)))
            else:
                done.append(request)
        _finish(warehouse, done)
    summary = Honoured(len(done), ambiguous, len(meant) - len(done), rows + again, tuple(sorted(reasons)))
    logger.info(
        "erasures: %s done, %s ambiguous, %s still open%s",
        summary.done, summary.ambiguous, summary.still_open, f" ({'; '.join(summary.reasons)})" if reasons else "",
    )  # fmt: skip
    return summary


def _keep_out(warehouse: Warehouse) -> int:
    """Delete what imports have brought back of people who are erased; returns the rows."""
    request_id = f"again-{uuid.uuid4().hex}"
    with warehouse.session() as session:
        erased_at = gather_imported_again(warehouse, session, request_id)
        if erased_at is None:
            return 0
        block(warehouse, session, request_id, erased_at)
        rows = delete_rows(warehouse, session, [request_id], ledger=False)
    _forget_keys(warehouse, [request_id])
    if rows:
        logger.info("deleted %s rows that imports had brought back of people who are erased", rows)
    return rows


def _finish(warehouse: Warehouse, requests: list[dict[str, Any]]) -> None:
    """Every destination has let them go: their rows in the ledger, and then the keys, are not needed any more."""
    if not requests:
        return
    ids = [str(request["request_id"]) for request in requests]
    with warehouse.session() as session:
        keep_opt_outs(warehouse, session, ids)
        delete_rows(warehouse, session, ids, ledger=True)
        strike_out(warehouse, session, ids)
    for request in requests:
        _receipt(warehouse, request, "request", Farewell("done"))
    _forget_keys(warehouse, ids)


def _left_over(warehouse: Warehouse) -> list[str]:
    """Requests that are closed while their keys are still there: a run died in between."""
    rows = warehouse.read(
        """
        select distinct keys.request_id
        from sync.erasure_keys as keys
        left join sync.erasure_receipts as closed
            on keys.request_id = closed.request_id
                and closed.system = 'request'
                and closed.outcome in ('done', 'ambiguous')
        where closed.request_id is not null or keys.request_id like 'again-%'
        """
    )
    return [str(row["request_id"]) for row in rows]


def _forget_keys(warehouse: Warehouse, request_ids: Iterable[str]) -> None:
    listed = ", ".join(f"'{request_id}'" for request_id in request_ids)  # ids of our own making
    with warehouse.session() as session:
        if warehouse.deletes_rows:
            run(warehouse, session, f"delete from sync.erasure_keys where request_id in ({listed})")
            return
        fresh = warehouse.beside("sync.erasure_keys")
        run(
            warehouse,
            session,
            f"create table {fresh} as select * from sync.erasure_keys where request_id not in ({listed})",
        )
        session.exec_driver_sql("drop table sync.erasure_keys")
        session.exec_driver_sql(f"alter table {fresh} rename to sync.erasure_keys")


def _receipt(warehouse: Warehouse, request: dict[str, Any], system: str, farewell: Farewell) -> None:
    warehouse.insert(
        "sync.erasure_receipts",
        [
            {
                "request_id": request["request_id"],
                "request_hash": request["request_hash"],
                "system": system,
                "outcome": farewell.outcome,
                "lists": farewell.lists,
                "rows": farewell.members,
                "is_verified": farewell.is_verified,
                "detail": farewell.detail or None,
                "requested_at": request["requested_at"],
                "recorded_at": utc_now(),
            }
        ],
    )


def _is_building(warehouse: Warehouse) -> bool:
    """Whether a build has begun that is not finished: it may have read her rows and not written them yet."""
    from include.warehouse.build import utc_now as clock

    newest = warehouse.read(
        "select status, recorded_at from sync.builds order by recorded_at desc, status desc limit 1"
    )
    if not newest or newest[0]["status"] == "finished":
        return False
    began: datetime = newest[0]["recorded_at"]
    return clock() - began < LONGEST_BUILD
