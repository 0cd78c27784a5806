"""## Staging ▶ core ▶ segments, one task per SQL file

Starts when every source has landed, and at a quarter to every hour in any case, so that one broken source does not
freeze the lists. The order of the tasks is read from the SQL. Behind each segment stands a quality gate; an audience
that passes is announced and its `sync_<audience>` starts. One that fails is announced too (`failed_gate`): its sync
sends nothing but removals that cannot wait, and asks a human.

Before the first segment, the tools are asked who opted out there, so that the rules know it.

Only what the loads since the last finished build touched is worked out; `prepare` says in its log what that is, or why
everything is built anew.

**Parameters:** `as_of` builds for another moment (ISO, UTC); `full_refresh` builds everything anew.

**If it fails:** a red table names its SQL file and the database's sentence; a red gate lists what is wrong with that
audience only; a red `definition_files` lists the YAML files that cannot be read. Clearing any task is safe.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import (
    AssetAll,
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    Param,
    dag,
    get_current_context,
    task,
    task_group,
)

from include.assets import audience_asset, source_asset, table_asset
from include.audiences.load import load_audiences
from include.destinations.base import destination_class
from include.scheduling import DEFAULT_ARGS, START_DATE, WAREHOUSE_POOL, run_as_of
from include.settings import get_settings
from include.sources import load_sources
from include.warehouse.models import build_order, load_models

SOURCES = AssetAll(*(source_asset(name) for name in load_sources()))
AT_LATEST = get_settings().build_at_latest


@dag(
    dag_display_name="Build audiences",
    schedule=AssetOrTimeSchedule(
        assets=SOURCES,
        timetable=CronTriggerTimetable(AT_LATEST, timezone="UTC", run_immediately=timedelta(0)),
    )
    if AT_LATEST
    else SOURCES,
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS | {"pool": WAREHOUSE_POOL},
    params={
        "as_of": Param(None, type=["null", "string"], description="build for this moment (ISO, UTC)"),
        "full_refresh": Param(False, type="boolean", description="build everything anew, whatever arrived"),
    },
    tags=["stage/build", "impact/tier_1"],
    doc_md=__doc__,
)
def build_audiences() -> None:
    models, audiences = load_models(), load_audiences()

    @task
    def prepare() -> None:
        from include.warehouse.build import ensure_views, setting_params
        from include.warehouse.builds import begin_build
        from include.warehouse.engine import get_warehouse

        context = get_current_context()
        warehouse = get_warehouse()
        warehouse.ensure_tables()
        ensure_views(warehouse)
        asked = bool(context["params"]["full_refresh"])
        begin_build(warehouse, run_as_of(context), setting_params(), full_refresh=asked)

    @task
    def finish() -> None:
        from include.warehouse.builds import finish_build
        from include.warehouse.engine import get_warehouse

        finish_build(get_warehouse())

    @task(retries=1)
    def definition_files() -> None:
        from include.errors import ConfigurationError
        from include.sources import read_sources

        errors = [*read_sources().errors, *load_audiences().errors]
        if errors:
            raise ConfigurationError("\n".join(str(error) for error in errors))

    def opt_outs(destination: str):
        @task(task_id=f"opt_outs_{destination}", pool=destination)
        def read() -> int:
            from include.sync.run import read_all_opt_outs

            return read_all_opt_outs(destination)

        return read()

    def build(table: str):
        @task(task_id=table.split(".")[1], outlets=[table_asset(table)])
        def build_table() -> int:
            from include.warehouse.build import build_model
            from include.warehouse.engine import get_warehouse

            return build_model(get_warehouse(), table, run_as_of(get_current_context()))

        return build_table()

    tables = {}
    ready = prepare()
    definition_files()
    # A tool that does not answer stops its own branch of each sync, not the build: what was read before still holds.
    opt_outs_read = EmptyOperator(task_id="opt_outs_read", trigger_rule="all_done")
    for destination in audiences.destinations:
        if destination_class(destination).tells_opt_outs():
            ready >> opt_outs(destination) >> opt_outs_read
    for schema in ("staging", "core"):

        @task_group(group_id=schema)
        def layer(schema: str = schema) -> None:
            for table in build_order(models):
                if table.startswith(f"{schema}."):
                    tables[table] = build(table)
                    inputs = [
                        tables[name] for name in models[table].depends_on | models[table].follows if name in tables
                    ]
                    (inputs or [ready]) >> tables[table]
                    if "sync.opt_outs" in models[table].depends_on:
                        opt_outs_read >> tables[table]

        layer()
    list(tables.values()) >> finish()

    gates_passed = EmptyOperator(task_id="gates_passed")  # a red gate makes a red run, whatever follows it
    for name, audience in audiences.audiences.items():

        @task_group(group_id=name)
        def segment_and_gate(name: str = name, segment: str = audience.segment) -> None:
            @task(outlets=[table_asset(f"segments.{name}")])
            def segment_rows() -> int:
                from include.audiences.segment import build_audience_segment
                from include.warehouse.engine import get_warehouse

                context = get_current_context()
                return build_audience_segment(get_warehouse(), name, run_as_of(context), context["run_id"])

            @task(outlets=[audience_asset(name)])
            def gate() -> int:
                from include.quality.gate import check_segment
                from include.warehouse.engine import get_warehouse

                context = get_current_context()
                return check_segment(get_warehouse(), name, run_as_of(context), context["run_id"])

            rows, passed = segment_rows(), gate()
            rows >> passed >> gates_passed
            passed >> EmptyOperator(task_id="failed_gate", trigger_rule="all_failed", outlets=[audience_asset(name)])
            [tables[table] for table in models[f"segments.{segment}"].depends_on if table in tables] >> rows

        segment_and_gate()


build_audiences()
