"""## Pull every configured source into `raw`

One DAG per file in `include/sources/definitions`, on the schedule the file names. Each run loads what is new since the
last one and announces it, which lets `build_audiences` start.

**If it fails:** the task log's last line says which call or file, and what to do. Rows that could not be read are in
`staging.rejected_rows` after the next build. Clearing the task is safe: a row that is loaded twice counts once.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from include.assets import source_asset
from include.scheduling import DEFAULT_ARGS, START_DATE
from include.sources import SourceDefinition, load_sources


def make_dag(name: str, source: SourceDefinition) -> None:
    """Register the DAG of one source."""

    @dag(
        dag_id=f"ingest_{name}",
        dag_display_name=f"Ingest {source.label}",
        schedule=source.schedule,
        start_date=START_DATE,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["stage/ingest", "impact/tier_2"],
        doc_md=__doc__,
    )
    def ingest() -> None:
        @task(outlets=[source_asset(name)])
        def load() -> dict[str, int]:
            from include.sources import ingest as ingest_source
            from include.warehouse.engine import get_warehouse

            return ingest_source(name, get_warehouse())

        load()

    ingest()


for _name, _source in load_sources().items():
    make_dag(_name, _source)
