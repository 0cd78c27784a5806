"""The same list by a dlt custom destination, in an environment of its own; no import of ours but the clock.

python -m tests.benchmarks.sync.with_dlt URL FILE FOLDER: reads `members` of a DuckDB file and posts them in batches of
500. What has changed it finds by the cursor `changed_at`; that somebody left it cannot see. The answer's body is not
read, as a destination function has no place to say that single rows were refused.
"""

from __future__ import annotations

import sys

from tests.benchmarks.sync.clock import measured, say  # isort: skip

import os
from datetime import datetime

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import dlt
import dlt.destinations
import duckdb
import pyarrow.parquet  # noqa: F401
from dlt.common.json import json as fast_json
from dlt.sources.helpers import requests

COLUMNS = "email, cart_url, cart_total, cart_items, changed_at"


def main(url: str, file: str, folder: str) -> None:
    """One run of the pipeline."""
    session = requests.Client().session
    sent = 0

    @dlt.destination(batch_size=500, loader_file_format="parquet", name="mailchimp", naming_convention="direct")
    def mailchimp(items, table) -> None:  # type: ignore[no-untyped-def]
        nonlocal sent
        members = [
            {
                "email_address": item["email"],
                "merge_fields": {
                    "CART_ITEMS": item["cart_items"],
                    "CART_TOTAL": item["cart_total"],
                    "CART_URL": item["cart_url"],
                },
                "tags": ["Carts"],
                "status_if_new": "transactional",
            }
            for item in items.to_pylist()
        ]
        answer = session.post(
            f"{url}/3.0/lists/bench",
            params={"skip_merge_validation": "true", "skip_duplicate_check": "true"},
            data=fast_json.dumpb({"members": members, "update_existing": True, "sync_tags": False}),
            headers={"Content-Type": "application/json"},
            auth=("key", "key"),
        )
        answer.raise_for_status()
        sent += len(members)

    @dlt.resource(name="members", max_table_nesting=0)
    def members(
        changed=dlt.sources.incremental(  # type: ignore[no-untyped-def]  # noqa: B008
            "changed_at", initial_value=datetime(2000, 1, 1), primary_key=(), range_start="open"
        ),
    ):
        with duckdb.connect(file, read_only=True) as connection:
            found = connection.execute(f"select {COLUMNS} from members where changed_at > $1", [changed.last_value])
            yield from found.to_arrow_reader(50_000)

    pipeline = dlt.pipeline("carts", destination=mailchimp, pipelines_dir=folder, progress=None)
    with measured() as figures:
        pipeline.run(members)
    say(figures, delivered=sent)


if __name__ == "__main__":
    main(*sys.argv[1:])
