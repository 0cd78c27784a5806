"""The same list by drt (drt-core): its `rest_api` destination in batch mode, in an environment of its own.

python -m tests.benchmarks.sync.with_drt JSON: `server`, `sync` (a name) and either `file`, a DuckDB file that is sent
whole, or `postgres`, a server of which the difference from the snapshot before is sent (drt has that on PostgreSQL, not
on DuckDB); `dry` sends to nobody. drt has no Mailchimp destination. `rest_api` takes no `upsert_key`, which the
difference needs: it gets one here. It tells who left, and `rest_api` removes nobody.
"""

from __future__ import annotations

import sys

from tests.benchmarks.sync.clock import measured, say  # isort: skip

import json
from pathlib import Path

import duckdb  # noqa: F401
import psycopg2  # noqa: F401
from drt.config.models import RateLimitConfig, RestApiDestinationConfig, SyncConfig, SyncOptions
from drt.config.profiles import DuckDBProfile, PostgresProfile
from drt.config.sync_options import DiffConfig
from drt.destinations.base import SyncResult
from drt.destinations.rest_api import RestApiDestination
from drt.engine.sync import run_sync
from drt.sources.duckdb import DuckDBSource
from drt.sources.postgres import PostgresSource

TEMPLATE = (
    '{"members": [{% for row in rows %}{'
    '"email_address": {{ row.email | tojson_safe }}, "merge_fields": {'
    '"CART_ITEMS": {{ row.cart_items | tojson_safe }}, "CART_TOTAL": {{ row.cart_total | tojson_safe }}, '
    '"CART_URL": {{ row.cart_url | tojson_safe }}}, '
    '"tags": ["Carts"], "status_if_new": "transactional"}{% if not loop.last %}, {% endif %}{% endfor %}], '
    '"update_existing": true, "sync_tags": false}'
)


class Keyed(RestApiDestinationConfig):
    """`rest_api` with the key that a difference is taken by."""

    upsert_key: list[str] = ["email"]


class Nobody(RestApiDestination):
    """Takes everything and sends nothing: to have a snapshot to compare with."""

    def load(self, records, config, sync_options):  # type: ignore[no-untyped-def]
        return SyncResult(success=len(records))


def main(text: str) -> None:
    """One run of the sync."""
    chosen = json.loads(text)
    options = {"batch_size": 500, "rate_limit": RateLimitConfig(requests_per_second=1e9), "on_error": "skip"}
    if "postgres" in chosen:
        options |= {"mode": "upsert", "incremental_strategy": "diff", "diff": DiffConfig()}
        source, profile = PostgresSource(), PostgresProfile(type="postgres", **chosen["postgres"])
    else:
        source, profile = DuckDBSource(), DuckDBProfile(type="duckdb", database=chosen["file"])
    address = f"{chosen['server']}/3.0/lists/bench?skip_merge_validation=true&skip_duplicate_check=true"
    destination = Keyed(type="rest_api", url=address, body_mode="batch", batch_template=TEMPLATE)
    sync = SyncConfig(
        name=chosen["sync"],
        model="select email, cart_url, cart_total, cart_items from members",
        destination=destination,
        sync=SyncOptions(**options),
    )
    sync.destination = destination  # as it was made: the model knows no upsert_key
    with measured() as figures:
        result = run_sync(sync, source, Nobody() if chosen.get("dry") else RestApiDestination(), profile, Path("."))
    removed = result.diff_removed_keys or []
    say(figures, delivered=result.success, refused=result.failed, left_out=len(removed), errors=result.errors[:1])


if __name__ == "__main__":
    main(*sys.argv[1:])
