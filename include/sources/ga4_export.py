"""Google Analytics 4, the BigQuery export as files: events_YYYYMMDD and events_intraday_*, Parquet or JSON lines.

Where in the flow: files ▶ `raw.events`, `raw.event_items`, `raw.rejected_rows`. Each file is flattened by an
in-process DuckDB; the nested schema is the one Google documents
(https://support.google.com/analytics/answer/7029846), and any part of it may be missing. A day's file that is
rewritten (Google does so for up to three days) is loaded again whole: `event_key` is the same for every copy of an
event, also between a daily and an intraday file, so it counts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from include.errors import ConfigurationError
from include.sources.base import Batch, Rows, Source, SourceSettings, State
from include.sources.country import country_names
from include.sources.exports import (
    DataFile,
    base_folder,
    batches,
    find_files,
    is_damage,
    parquet_schema,
    quote,
    read_lines,
    work_database,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

PLACEHOLDERS = "('', '(not set)', '(data deleted)', '<Other>', '(not provided)')"
LATEST = 4_102_444_800_000_000  # 2100-01-01 in microseconds: later is no time but a mistake
GROUP_FILES = 100
GROUP_BYTES = 512 * 1024 * 1024
EMAIL_SHAPE = r"^[^@\s]+@[^@\s]+\.[^@\s]+$"

# What we read of a row; everything else in an export is left alone.
PARAMETER = {
    "key": "VARCHAR",
    "value": dict.fromkeys(("string_value", "int_value", "float_value", "double_value"), "VARCHAR"),
}
STRUCTURE: dict[str, Any] = {
    **dict.fromkeys(
        (
            "event_timestamp",
            "event_name",
            "event_bundle_sequence_id",
            "batch_event_index",
            "batch_page_id",
            "batch_ordering_id",
            "user_id",
            "user_pseudo_id",
            "platform",
        ),
        "VARCHAR",
    ),
    "event_params": [PARAMETER],
    "user_properties": [PARAMETER],
    "privacy_info": {"analytics_storage": "VARCHAR", "ads_storage": "VARCHAR"},
    "device": {"category": "VARCHAR", "browser": "VARCHAR", "web_info": {"browser": "VARCHAR"}},
    "geo": {"country": "VARCHAR"},
    "ecommerce": {"transaction_id": "VARCHAR", "purchase_revenue": "VARCHAR"},
    "items": [
        {
            **dict.fromkeys(
                (
                    "item_id",
                    "item_name",
                    "item_brand",
                    "item_category",
                    "price",
                    "quantity",
                    "image_url",
                    "product_url",
                ),
                "VARCHAR",
            ),
            "item_params": [PARAMETER],
        }
    ],
}
# Columns Google has documented up to 2026-11; others are announced as new.
KNOWN_COLUMNS = frozenset(STRUCTURE) | {
    "event_date",
    "event_previous_timestamp",
    "event_value_in_usd",
    "event_server_timestamp_offset",
    "event_dimensions",
    "user_first_touch_timestamp",
    "user_ltv",
    "app_info",
    "traffic_source",
    "collected_traffic_source",
    "session_traffic_source_last_click",
    "stream_id",
    "is_active_user",
    "publisher",
}


class Ga4Settings(SourceSettings):
    """Which files are the export."""

    path: str | None = Field(None, description="folder, file or pattern; default: extra `path` of the connection")
    files: tuple[str, ...] = Field(("events_*",), min_length=1, description="patterns of file (or folder) names")


class Ga4Export(Source):
    """Reads the files that are new or rewritten since the last finished load."""

    kind: ClassVar[str] = "ga4_export"
    label: ClassVar[str] = "Google Analytics 4 export"
    docs_url: ClassVar[str] = "https://support.google.com/analytics/answer/7029846"
    Settings = Ga4Settings
    settings: Ga4Settings

    def read(self, state: State) -> Iterator[Batch]:
        """Events and items of every new or rewritten file."""
        base = base_folder(self.run.connection.conn_id, self.run.connection.extra, self.settings.path)
        files = find_files(base, self.settings.files, ("parquet", "jsonl"))
        done: dict[str, list[int]] = state.setdefault("files", {})
        if not files:
            if not done:
                wanted = ", ".join(self.settings.files)
                raise ConfigurationError(f"no GA4 export file ({wanted}; Parquet or JSON lines) at {base}")
            self.run.say("no export file in %s any more; what was loaded stays", base)
            return
        fresh = [file for file in files if done.get(file.name) != file.signature]
        total = sum(file.size for file in fresh)
        self.run.say("%s of %s files are new or rewritten (%.1f MB)", len(fresh), len(files), total / 1e6)
        database = work_database()
        try:
            names = country_names()
            database.execute("create table countries (name varchar, code varchar)")
            database.execute(
                "insert into countries select unnest(?::varchar[]), unnest(?::varchar[])",
                [list(names), list(names.values())],
            )
            read = number = 0
            for group, schema in _groups(fresh):
                self.run.advance(f"file {number + 1} of {len(fresh)}, bytes", read, total)
                if group[0].format == "jsonl":
                    yield from self._json_file(database, group[0], state)
                else:
                    yield from self._parquet_files(database, group, schema, state)
                for file in group:
                    done[file.name] = file.signature
                    number, read = number + 1, read + file.size
        finally:
            database.close()

    def _parquet_files(
        self, database: duckdb.DuckDBPyConnection, group: list[DataFile], schema: pa.Schema | None, state: State
    ) -> Iterator[Batch]:
        """Files of one schema, in one go."""
        if schema is None:
            yield from self._unreadable(group[0])
            return
        self._announce(state, schema.names)
        root = str(group[0].path).removesuffix(group[0].name)
        paths = ", ".join(quote(str(file.path)) for file in group)
        source = (
            f"select file_row_number + 1 as line_number, substr(filename, {len(root) + 1}) as source_file, * "
            f"from read_parquet([{paths}], file_row_number = true, filename = true)"
        )
        try:
            yield from self._flatten(database, _Flat(source, _paths(schema), is_text=False))
        except Exception as error:
            if not is_damage(error):
                raise
            if len(group) == 1:
                yield from self._unreadable(group[0])
                return
            for file in group:
                yield from self._parquet_files(database, [file], schema, state)

    def _unreadable(self, file: DataFile) -> Iterator[Batch]:
        rows = Rows(self)
        rows.reject("events", file.name, "not a readable Parquet file (half written or damaged)", "")
        self.run.say("%s is not a readable Parquet file; set aside until it is rewritten", file.name)
        yield from rows.rest()

    def _json_file(self, database: duckdb.DuckDBPyConnection, file: DataFile, state: State) -> Iterator[Batch]:
        rows = Rows(self)
        for index, chunk in enumerate(read_lines(file)):
            for line_number, reason in chunk.broken:
                rows.reject("events", f"{file.name}:{line_number}", reason, "")
            database.register("chunk", chunk.arrow())
            if index == 0:
                keys = database.execute(
                    "select distinct unnest(json_keys(line)) from (select line from chunk "
                    "where case when json_valid(line) then json_type(line) = 'OBJECT' else false end limit 1000)"
                ).fetchall()
                self._announce(state, [key for (key,) in keys])
            database.execute(
                "create or replace temp table parsed as select line_number, line, "
                f"json_transform(line, {quote(json.dumps(STRUCTURE))}) as j from chunk where json_valid(line)"
            )
            broken = database.execute(
                "select line_number, line from chunk where not json_valid(line) order by line_number"
            ).fetchall()
            for line_number, line in broken:
                rows.reject("events", f"{file.name}:{line_number}", "not JSON", line)
            source = f"select line_number, {quote(file.name)} as source_file, line, j.* from parsed"
            yield from self._flatten(database, _Flat(source, _structure_paths(STRUCTURE), is_text=True))
            database.unregister("chunk")
        yield from rows.rest()

    def _flatten(self, database: duckdb.DuckDBPyConnection, sql: _Flat) -> Iterator[Batch]:
        for table, query in sql.queries():
            for batch in batches(database, query):
                yield self.stamp(table, batch)

    def _announce(self, state: State, columns: list[str]) -> None:
        known = set(state.get("columns", ())) | KNOWN_COLUMNS
        fresh = sorted(set(columns) - known)
        if fresh:
            self.run.say("the export has new columns, which are not loaded: %s", ", ".join(fresh))
            state["columns"] = sorted({*state.get("columns", ()), *fresh})


class _Flat:
    """The SQL that flattens one file, from what its schema has."""

    def __init__(self, source: str, has: set[str], *, is_text: bool) -> None:
        self.source, self.has, self.is_text = source, has, is_text

    def col(self, path: str) -> str:
        """A (nested) column as text, null where the file does not have it."""
        return f"cast({path} as varchar)" if path in self.has else "cast(null as varchar)"

    def item(self, field: str) -> str:
        """A field of an item as text."""
        return f"cast(item.{field} as varchar)" if f"items.{field}" in self.has else "cast(null as varchar)"

    def _value(self, array: str, keys: str, key: str, place: str) -> list[str]:
        """The parts of a parameter's value as texts, in order of preference."""
        element = f"{array}[list_position({keys}, {quote(key)})].value"
        return [
            f"cast({element}.{part} as varchar)"
            for part in ("string_value", "int_value", "double_value", "float_value")
            if f"{place}.value.{part}" in self.has
        ]

    def param(self, key: str) -> str:
        """An event parameter as text, whatever type it came in."""
        parts = self._value("event_params", "param_keys", key, "event_params")
        return f"coalesce({', '.join(parts)})" if parts else "cast(null as varchar)"

    def prop(self, key: str) -> str:
        """A user property as text."""
        parts = self._value("user_properties", "prop_keys", key, "user_properties")
        return f"coalesce({', '.join(parts)})" if parts else "cast(null as varchar)"

    def item_link(self, field: str) -> str:
        """An item's picture or page: its own field, else its custom parameter of that name."""
        own = f"nullif(trim({self.item(field)}), '')"
        parts = self._value(
            "item.item_params", "list_transform(item.item_params, lambda p: p.key)", field, "items.item_params"
        )
        return f"coalesce({own}, {', '.join(parts)})" if parts else own

    def _rows(self) -> str:
        """The common start: usable rows with the keys of their parameters."""
        keys = "list_transform(event_params, lambda p: p.key)" if "event_params.key" in self.has else "null"
        props = (
            "list_transform(user_properties, lambda p: cast(p.key as varchar))"
            if "user_properties.key" in self.has
            else "null"
        )
        return (
            f"with origin as ({self.source}), typed as (select *, {keys} as param_keys, {props} as prop_keys, "
            f"try_cast({self.col('event_timestamp')} as bigint) as micros, "
            f"nullif(trim({self.col('event_name')}), '') as clean_name from origin), "
            f"usable as (select * from typed where micros > 0 and micros < {LATEST} and clean_name is not null)"
        )

    def event_key(self) -> str:
        """One digest for every copy of an event. Item ids only stand in where Google gives no place in the batch."""
        parts = [
            self.col("user_pseudo_id"),
            self.param("ga_session_id"),
            "clean_name",
            "cast(micros as varchar)",
            self.col("event_bundle_sequence_id"),
            self.col("batch_event_index"),
            self.col("batch_page_id"),
            self.col("batch_ordering_id"),
        ]
        if "items.item_id" in self.has:
            ids = "array_to_string(list_transform(items, lambda i: coalesce(cast(i.item_id as varchar), '')), ',')"
            parts.append(f"case when {self.col('batch_event_index')} is null then {ids} end")
        else:
            parts.append("''")
        return "md5(concat_ws('|', " + ", ".join(f"coalesce({part}, '')" for part in parts) + "))"

    def queries(self) -> Iterator[tuple[str, str]]:
        """(raw table, query) for events, items and what has to be set aside."""
        yield "events", self.events()
        if "items.item_id" in self.has or "items.item_name" in self.has:
            yield "event_items", self.items()
            if self.is_text:
                yield "rejected_rows", self.rejected_items()
        yield "rejected_rows", self.rejected()

    def events(self) -> str:
        def known(text: str) -> str:
            return f"case when trim({text}) not in {PLACEHOLDERS} then trim({text}) end"

        def email(text: str) -> str:
            return f"lower(trim(nfc_normalize({text})))"

        address = f"coalesce({email(self.param('email'))}, {email(self.prop('email'))})"
        engaged = self.param("session_engaged")
        number = "try_cast({} as bigint)".format
        return (
            f"{self._rows()} select {self.event_key()} as event_key, clean_name as event_name, "
            f"nullif(trim({self.col('user_pseudo_id')}), '') as visitor_id, "
            f"nullif(trim(nfc_normalize({self.col('user_id')})), '') as user_id, "
            f"case when regexp_matches({address}, {quote(EMAIL_SHAPE)}) then {address} end as email, "
            f"{self.param('ga_session_id')} as session_id, "
            f"{self.param('page_location')} as page_location, {self.param('page_referrer')} as page_referrer, "
            f"{self.param('page_title')} as page_title, "
            f"coalesce({known(self.col('ecommerce.transaction_id'))}, {known(self.param('transaction_id'))}) "
            f"as transaction_id, {known(self.param('currency'))} as currency, "
            f"coalesce({known(self.col('device.browser'))}, {known(self.col('device.web_info.browser'))}) as browser, "
            f"{known(self.col('device.category'))} as device_category, "
            f"coalesce(countries.code, {known(self.col('geo.country'))}) as country, "
            f"{known(self.param('traffic_type'))} as traffic_type, "
            f"nullif(trim({self.col('privacy_info.ads_storage')}), '') as ads_storage, "
            f"nullif(trim({self.col('privacy_info.analytics_storage')}), '') as analytics_storage, "
            f"{self.col('platform')} as platform, source_file, "
            f"{number(self.param('ga_session_number'))} as session_number, "
            f"{number(self.param('engagement_time_msec'))} as engagement_ms, "
            f"coalesce(try_cast({self.param('value')} as double), "
            f"try_cast({self.col('ecommerce.purchase_revenue')} as double)) as value, "
            f"case when lower({engaged}) in ('1', 'true') then true when {engaged} is not null then false end "
            f"as is_engaged, make_timestamp(micros) as occurred_at from usable "
            f"left join countries on countries.name = lower(trim({self.col('geo.country')}))"
        )

    def _unnested(self) -> str:
        where = "source_file, line_number"
        return (
            f"{self._rows()}, keyed as (select {self.event_key()} as event_key, {where}, items from usable "
            f"where len(items) > 0), lines as (select event_key, {where}, unnest(items) as item, "
            "generate_subscripts(items, 1) - 1 as item_index from keyed)"
        )

    def _bad_number(self) -> str:
        bad = [
            f"({self.item(field)} is not null and try_cast({self.item(field)} as double) is null)"
            for field in ("quantity", "price")
        ]
        return "(" + " or ".join(bad) + ")"

    def items(self) -> str:
        def known(field: str) -> str:
            return f"case when trim({self.item(field)}) not in {PLACEHOLDERS} then trim({self.item(field)}) end"

        return (
            f"{self._unnested()} select event_key, item_index, {known('item_id')} as sku, "
            f"{known('item_name')} as name, {known('item_category')} as category, {known('item_brand')} as brand, "
            f"{self.item_link('image_url')} as image_url, {self.item_link('product_url')} as product_url, "
            f"cast(try_cast({self.item('quantity')} as double) as bigint) as quantity, "
            f"try_cast({self.item('price')} as double) as price from lines "
            + (f"where not {self._bad_number()}" if self.is_text else "")
        )

    def rejected_items(self) -> str:
        return (
            f"{self._unnested()} select 'event_items' as table_name, "
            f"source_file || ':' || line_number || ' item ' || (item_index + 1) as location, "
            "'quantity or price is not a number' as reason, cast(to_json(item) as varchar) as raw_row "
            f"from lines where {self._bad_number()}"
        )

    def rejected(self) -> str:
        raw = "line" if self.is_text else "cast(to_json(origin) as varchar)"
        stamp, event = self.col("event_timestamp"), f"nullif(trim({self.col('event_name')}), '')"
        return (
            f"with origin as ({self.source}) select 'events' as table_name, "
            f"source_file || ':' || line_number as location, "
            f"case when {event} is null then 'no event_name' when {stamp} is null then 'no event_timestamp' "
            f"else 'event_timestamp is no time in microseconds' end as reason, {raw} as raw_row from origin "
            f"where {event} is null or coalesce(try_cast({stamp} as bigint), 0) <= 0 "
            f"or try_cast({stamp} as bigint) >= {LATEST}"
        )


def _paths(schema: pa.Schema) -> set[str]:
    """Every nested path of a Parquet schema, lists looked through: `device.web_info.browser`, `items.item_id`."""
    import pyarrow as pa

    found: set[str] = set()

    def walk(path: str, kind: pa.DataType) -> None:
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        found.add(path)
        if pa.types.is_struct(kind):
            for index in range(kind.num_fields):
                walk(f"{path}.{kind.field(index).name}", kind.field(index).type)

    for column in schema:
        walk(column.name, column.type)
    return found


def _structure_paths(structure: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in structure.items():
        path = f"{prefix}{key}"
        found.add(path)
        inner = value[0] if isinstance(value, list) else value
        if isinstance(inner, dict):
            found |= _structure_paths(inner, f"{path}.")
    return found


def _groups(files: list[DataFile]) -> Iterator[tuple[list[DataFile], pa.Schema | None]]:
    """Neighbouring Parquet files of one schema together; every other file by itself."""
    group: list[DataFile] = []
    shape: pa.Schema | None = None
    size = 0
    for file in files:
        schema = parquet_schema(file) if file.format == "parquet" else None
        fits = schema is not None and shape is not None and schema.equals(shape)
        if group and not (fits and len(group) < GROUP_FILES and size < GROUP_BYTES):
            yield group, shape
            group, size = [], 0
        group, shape, size = [*group, file], schema, size + file.size
    if group:
        yield group, shape
