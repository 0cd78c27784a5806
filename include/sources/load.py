"""Run one source through dlt into `raw`.

The warehouse is the only place that remembers how far a source was read: every run starts from the state that was
committed with the last finished load, and what a dead run left on disk is thrown away. So a crash anywhere leaves no
gap; rows may arrive twice, and the SQL downstream counts them once.

Reading and preparing run without the warehouse; only fetching the state and the load itself hold it.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.connections import get_connection
from include.errors import ConfigurationError, RekindleError, TransientError
from include.settings import get_settings
from include.sources.base import Progress, Run, Source, source_class, utc_now
from include.sources.definition import get_source_definition

if TYPE_CHECKING:
    from include.warehouse.engine import Warehouse

log = logging.getLogger(__name__)

# Read by dlt when it starts. It would ask Airflow for a Variable per setting: hundreds of calls in every run.
DLT_SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "PROVIDERS__ENABLE_AIRFLOW_SECRETS": "false",
    "RUNTIME__LOG_LEVEL": "WARNING",
}


def ingest(
    name: str,
    warehouse: Warehouse,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    loaded_at: datetime | None = None,
) -> dict[str, int]:
    """Load what is new in one source; returns rows per raw table, and `rejected`."""
    definition = get_source_definition(name, folder)
    cls = source_class(definition.kind)
    run = Run(name, get_connection(definition.connection), loaded_at or utc_now(), progress)
    return run_source(cls(run, cls.Settings.model_validate(definition.settings)), warehouse)


def run_source(source: Source, warehouse: Warehouse) -> dict[str, int]:
    """Extract, normalise and load one source; the state moves with the committed load and never before."""
    from filelock import FileLock

    run = source.run
    folder = get_settings().state_dir / "dlt"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{run.name}.lock"):
        counts = _run_locked(source, warehouse, folder)
    if run.problems:
        raise ConfigurationError(f"source {run.name}: " + "; ".join(run.problems))
    return counts


def _run_locked(source: Source, warehouse: Warehouse, folder: Path) -> dict[str, int]:
    for key, value in DLT_SETTINGS.items():
        os.environ.setdefault(key, value)
    from dlt.pipeline.exceptions import PipelineStepFailed

    run = source.run
    warehouse.ensure_tables()
    if waited := warehouse.take_in(run.name):
        run.say("took in %s rows that a run before had left", waited)
    pipeline = _fresh_pipeline(run.name, warehouse, folder)
    try:
        with warehouse.exclusive():
            pipeline.sync_destination()
        run.start_clock()
        pipeline.extract(_dlt_source(source))
        pipeline.normalize(workers=1)
        counts = {table: rows for table, rows in sorted(run.rows.items()) if table != "rejected_rows"}
        counts["rejected"] = run.rows["rejected_rows"]
        if pipeline.has_pending_data:
            run.say("loading %s rows", sum(counts.values()))
            with warehouse.exclusive():
                pipeline.load(raise_on_failed_jobs=True)
            warehouse.take_in(run.name)
            warehouse.analyze(*(f"raw.{table}" for table in run.rows))
    except PipelineStepFailed as error:
        log.debug("source %s failed", run.name, exc_info=True)
        # Not chained: the texts below may quote a row.
        raise _ours(error, run.name) from None
    finally:
        pipeline.deactivate()
    run.say("done: %s", ", ".join(f"{rows} {table}" for table, rows in counts.items()))
    return counts


def _fresh_pipeline(name: str, warehouse: Warehouse, folder: Path) -> Any:
    """A dlt pipeline without anything a dead run left on this disk; the warehouse holds the state."""
    import dlt

    def make() -> Any:
        return dlt.pipeline(
            name, destination=warehouse.dlt_destination(name), dataset_name="raw", pipelines_dir=str(folder)
        )

    make().drop()
    return make()


def _dlt_source(source: Source) -> Any:
    """The dlt source: one resource that sends each batch to its raw table, untouched."""
    import dlt

    from include.warehouse.engine import without_zeros

    run = source.run

    def rows() -> Iterator[Any]:
        for table, batch in source.read(dlt.current.source_state()):
            if batch.num_rows == 0:
                continue
            run.rows[table] += batch.num_rows
            batch = without_zeros(batch)
            run.advance("read", sum(run.rows.values()))
            yield dlt.mark.with_table_name(batch, table)

    def system() -> Any:
        return dlt.resource(rows, name="rows", write_disposition="append")

    return dlt.source(system, name=run.name, max_table_nesting=0)()


def _ours(error: BaseException, name: str) -> RekindleError:
    """The error that a step of dlt wraps, when it is one of ours; else one that tells the step and no data."""
    cause: BaseException | None = error
    seen: set[int] = set()
    last: BaseException = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, RekindleError):
            return cause
        seen.add(id(cause))
        last = cause
        cause = cause.__cause__ or cause.__context__
    step = getattr(error, "step", "run")
    ours = [frame for frame in traceback.extract_tb(last.__traceback__) if "/include/" in frame.filename]
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    told = f"{type(last).__name__}{place}: {_without_data(str(last))}"
    return TransientError(f"source {name}: {step} failed, nothing of this run counts ({told})")


def _without_data(text: str) -> str:
    """The first line of a library's error without what could be a value of a row."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    line = re.sub(r'"[^"]*"|\'[^\']*\'', "'...'", line)
    return re.sub(r"\S+@\S+|\d{4,}", "...", line)[:200]
