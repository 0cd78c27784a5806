"""Files with a column map: CSV, JSON lines or Parquet that some other system exports, into any table of `raw`.

The definition lists feeds. A feed names a file (or a pattern), the raw table its rows are for, and for each of that
table's columns where the value comes from: a column of the file, a constant, or a column whose words are translated.
`order_lines` reads one line per item and makes orders and order items of them.

A file is read when it is new or was rewritten, or when its feed was edited. A row that cannot be typed is set aside
with file, line and reason. A missing or empty file never takes anything away.
"""

from __future__ import annotations

import csv
import glob
import io
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from include.errors import ConfigurationError, TransientError
from include.sources.base import Batch, Rows, Source, SourceSettings, State, raw_columns, raw_tables
from include.sources.country import country_code
from include.sources.definition import did_you_mean
from include.sources.exports import (
    DataFile,
    announce_new_columns,
    as_json,
    base_folder,
    batches,
    file_format,
    is_damage,
    name,
    open_bytes,
    parquet_schema,
    quote,
    read_lines,
    work_database,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

log = logging.getLogger(__name__)

Value = str | int | float | bool
CSV_CHUNK_ROWS = 50_000

# A row without these says nothing; each must be mapped, and a row where one is empty is set aside.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "contacts": ("contact_id",),
    "contact_identifiers": ("contact_id", "kind", "value"),
    "consents": ("channel", "status"),
    "suppressions": ("kind", "value"),
    "orders": ("order_id", "ordered_at"),
    "order_items": ("order_id",),
    "order_lines": ("order_id", "ordered_at"),
    "carts": ("cart_id", "updated_at"),
    "cart_items": ("cart_id",),
    "subscriptions": ("subscription_id", "status"),
    "engagement": ("type", "occurred_at"),
    "events": ("event_name", "occurred_at"),
    "event_items": ("event_key",),
}
# The words a column may hold, and what an unknown word becomes; None: the row is set aside.
WORDS: Mapping[tuple[str, str], tuple[tuple[str, ...], str | None]] = {
    ("orders", "status"): (("placed", "paid", "fulfilled", "returned", "cancelled", "failed"), "placed"),
    ("carts", "status"): (("open", "ordered", "emptied", "deleted"), "open"),
    ("subscriptions", "status"): (("active", "past_due", "cancelled", "expired", "failed"), None),
    ("subscriptions", "kind"): (("paid", "email"), None),
    ("consents", "channel"): (("email", "ads"), None),
    ("consents", "status"): (("granted", "denied", "unknown"), "unknown"),
    ("suppressions", "kind"): (("email", "domain", "phone", "contact_id"), None),
    ("suppressions", "channel"): (("email", "ads", "all"), "all"),
    ("engagement", "channel"): (("email", "ads"), None),
    ("engagement", "type"): (
        ("sent", "delivered", "open", "click", "bounce", "complaint", "unsubscribe"),
        None,
    ),
    ("contact_identifiers", "kind"): (("email", "phone", "user_id", "visitor_id", "merged_contact_id"), None),
}
DEFAULTS: Mapping[tuple[str, str], str] = {
    ("contacts", "is_deleted"): "false",
    ("subscriptions", "is_deleted"): "false",
    ("subscriptions", "kind"): "'paid'",
    ("suppressions", "is_active"): "true",
    ("suppressions", "channel"): "'all'",
    ("orders", "status"): "'placed'",
    ("orders", "is_test"): "false",
    ("carts", "status"): "'open'",
    ("engagement", "channel"): "'email'",
    ("engagement", "is_bot"): "false",
}
WHAT_IT_IS = {
    "bigint": "a whole number",
    "double": "a number",
    "boolean": "true or false",
    "timestamp": "a date or time",
}
OFFSET = r"\d\d:\d\d.*([zZ]|[+-]\d\d(:?\d\d)?)$"
LINE_TABLE = "order_lines"


class Column(BaseModel):
    """Where one raw column comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str | None = Field(None, description="column of the file")
    const: Value | None = Field(None, description="the same value for every row")
    map: Mapping[str, Value] | None = Field(None, description="pattern (* and ?, any case) to value, first match wins")
    default: Value | None = Field(None, description="value where the column is empty or no pattern matches")
    format: str | None = Field(None, description="how a time is written, e.g. %d/%m/%Y %H:%M")

    @model_validator(mode="after")
    def _one_origin(self) -> Column:
        if (self.column is None) == (self.const is None):
            raise ValueError("give either 'column' or 'const'")
        return self


def _named(value: object) -> object:
    """A mere text is the name of a column."""
    return {"column": value} if isinstance(value, str) else value


class Feed(BaseModel):
    """One file (or pattern of files) and what its rows are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1, description="relative to the connection's folder; * and ** are patterns")
    table: str = Field(description="a table of raw, or order_lines")
    columns: Mapping[str, Annotated[Column, BeforeValidator(_named)]] = Field(min_length=1)
    format: Literal["csv", "jsonl", "parquet"] | None = Field(None, description="default: from the file name")
    timezone: str = Field("UTC", description="for times that come without an offset")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="default: guessed from the header")
    encoding: str = Field("utf-8-sig", description="of CSV files")
    default_country: str | None = Field(None, pattern="^[A-Z]{2}$", description="of phone numbers without a country")
    skip: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="rows whose column matches one of the patterns are left out"
    )

    @field_validator("table")
    @classmethod
    def _known_table(cls, value: str) -> str:
        known = [*(table for table in raw_tables() if table != "rejected_rows"), LINE_TABLE]
        if value not in known:
            raise ValueError(f"'{value}' is not a table of raw{did_you_mean(value, known)}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"'{value}' is not a time zone; it looks like Europe/London") from error
        return value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: Mapping[str, Column], info: ValidationInfo) -> Mapping[str, Column]:
        table = info.data.get("table")
        if table is None:
            return value
        known = [column for column in table_columns(table) if column not in ("source", "loaded_at")]
        for column in value:
            if column not in known:
                raise ValueError(f"'{column}' is not a column of {table}{did_you_mean(column, known)}")
        for column in REQUIRED.get(table, ()):
            if column not in value:
                raise ValueError(f"{table} needs '{column}'")
        return value

    @property
    def key(self) -> str:
        """What the state knows this feed by."""
        return f"{self.table}:{self.path}"


class FilesSettings(SourceSettings):
    """The feeds, and where they are."""

    path: str | None = Field(None, description="folder; default: extra `path` of the connection")
    feeds: tuple[Feed, ...] = Field(min_length=1)

    @field_validator("feeds")
    @classmethod
    def _readable(cls, value: tuple[Feed, ...]) -> tuple[Feed, ...]:
        for feed in value:
            if feed.format is None and file_format(Path(feed.path)) is None:
                raise ValueError(f"the name '{feed.path}' does not tell its format; add format: csv, jsonl or parquet")
        if len({feed.key for feed in value}) < len(value):
            raise ValueError("two feeds read the same path into the same table")
        return value


def table_columns(table: str) -> dict[str, str]:
    """Columns a feed may fill, with their types."""
    if table != LINE_TABLE:
        return raw_columns(table)
    columns = {**raw_columns("orders"), **raw_columns("order_items")}
    del columns["total_amount"]
    return columns


class Files(Source):
    """Reads the files of every feed that are new or rewritten since the last finished load."""

    kind: ClassVar[str] = "files"
    label: ClassVar[str] = "Files"
    docs_url: ClassVar[str] = "docs/sources.md"
    Settings = FilesSettings
    settings: FilesSettings

    def read(self, state: State) -> Iterator[Batch]:
        """Rows of every feed; a feed whose file is missing for the first time is reported after the others loaded."""
        base = base_folder(self.run.connection.conn_id, self.run.connection.extra, self.settings.path)
        found = {feed.key: self._find(base, feed) for feed in self.settings.feeds}
        known = state.setdefault("feeds", {})
        if not any(found.values()) and not any(known.get(feed.key) for feed in self.settings.feeds):
            paths = ", ".join(str(base / feed.path) for feed in self.settings.feeds)
            raise ConfigurationError(f"source {self.run.name}: there is no file at {paths}")
        for feed in self.settings.feeds:
            memory = known.setdefault(feed.key, {})
            if not found[feed.key]:
                if memory.get("files"):
                    log.warning("%s: no file at %s any more; what was loaded stays", self.run.name, base / feed.path)
                else:
                    self.run.problems.append(f"there is no file at {base / feed.path} (the other feeds were loaded)")
                    del known[feed.key]
                continue
            config = as_json(feed.model_dump(mode="json"))
            if memory.get("config") != config:
                memory["config"], memory["files"] = config, {}
            for file in found[feed.key]:
                if memory["files"].get(file.name) == file.signature:
                    continue
                before = self.run.rows.total()
                if (yield from self._file(feed, file, state)):
                    memory["files"][file.name] = file.signature
                    self.run.say("%s: %s rows for %s", file.name, self.run.rows.total() - before, feed.table)

    def _find(self, base: Path, feed: Feed) -> list[DataFile]:
        files = []
        for text in sorted(glob.glob(str(base / feed.path), recursive=True)):
            path = Path(text)
            kind = feed.format or file_format(path)
            if path.is_file() and kind:
                stat = path.stat()
                shown = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
                files.append(DataFile(path, shown, kind, stat.st_size, stat.st_mtime_ns))
        return files

    def _file(self, feed: Feed, file: DataFile, state: State) -> Generator[Batch, None, bool]:
        """Yield the rows of one file; returns whether it counts as read."""
        rows = Rows(self)
        database = work_database()
        try:
            columns = self._land(database, feed, file, rows)
            if columns is None:
                yield from rows.rest()
                return True
            if columns:
                announce_new_columns(self.run, state, feed.path, columns)
                if not self._has_columns(feed, file, columns):
                    return False
                try:
                    yield from self._typed(database, feed, file, columns)
                except Exception as error:
                    if file.format != "parquet" or not is_damage(error):
                        raise
                    rows.reject(feed.table, file.name, "not a readable Parquet file (damaged inside)", "")
                    self.run.say("%s is damaged inside; set aside until it is rewritten", file.name)
            else:
                self.run.say("%s is empty; nothing changes", file.name)
            yield from rows.rest()
            return True
        finally:
            database.close()

    def _has_columns(self, feed: Feed, file: DataFile, columns: list[str]) -> bool:
        """Whether the file has what the map needs; JSON lines leave out what is empty, so there nothing is missing."""
        if file.format == "jsonl":
            return True
        for target, spec in feed.columns.items():
            origin = spec.column
            if origin is None or origin in columns:
                continue
            text = f"{file.name} has no column '{origin}' for {feed.table}.{target}{did_you_mean(origin, columns)}"
            if target in REQUIRED.get(feed.table, ()):
                self.run.problems.append(text)
                return False
            log.warning("%s: %s; it stays empty", self.run.name, text)
        return True

    # from a file to a table `lines` of texts

    def _land(self, database: duckdb.DuckDBPyConnection, feed: Feed, file: DataFile, rows: Rows) -> list[str] | None:
        """Make the table `lines` (line_number and texts); its columns, [] for an empty file, None for a broken one."""
        if file.format == "parquet":
            schema = parquet_schema(file)
            if schema is None:
                rows.reject(feed.table, file.name, "not a readable Parquet file (half written or damaged)", "")
                self.run.say("%s is not a readable Parquet file; set aside until it is rewritten", file.name)
                return None
            chosen = "".join(f", {_parquet_text(field)} as {name(field.name)}" for field in schema)
            database.execute(
                f"create view lines as select file_row_number + 1 as line_number{chosen} "
                f"from read_parquet({quote(str(file.path))}, file_row_number = true)"
            )
            return list(schema.names)
        if file.format == "jsonl":
            return self._land_jsonl(database, feed, file, rows)
        return self._land_csv(database, feed, file, rows)

    def _land_jsonl(self, database: duckdb.DuckDBPyConnection, feed: Feed, file: DataFile, rows: Rows) -> list[str]:
        wanted = sorted({spec.column for spec in feed.columns.values() if spec.column} | set(feed.skip))
        keys: set[str] = set()
        texts = "".join(f", json_extract_string(line, {quote('$.' + name(key))}) as {name(key)}" for key in wanted)
        shape = "".join(f", cast(null as varchar) as {name(key)}" for key in wanted)
        database.execute(f"create table lines as select cast(0 as bigint) as line_number{shape} limit 0")
        for chunk in read_lines(file):
            for number, reason in chunk.broken:
                rows.reject(feed.table, f"{file.name}:{number}", reason, "")
            database.register("chunk", chunk.arrow())
            good = "case when json_valid(line) then json_type(line) = 'OBJECT' else false end"
            broken = f"select line_number, line from chunk where not {good} order by line_number"
            for number, line in database.execute(broken).fetchall():
                rows.reject(feed.table, f"{file.name}:{number}", "not a JSON object", line)
            found = database.execute(
                f"select distinct unnest(json_keys(line)) from (select line from chunk where {good} limit 1000)"
            ).fetchall()
            keys.update(key for (key,) in found)
            database.execute(f"insert into lines select line_number{texts} from chunk where {good}")
            database.unregister("chunk")
        return sorted(keys | set(wanted)) if keys else []

    def _land_csv(self, database: duckdb.DuckDBPyConnection, feed: Feed, file: DataFile, rows: Rows) -> list[str]:
        import pyarrow as pa

        csv.field_size_limit(16 * 1024 * 1024)
        header: list[str] = []
        total = 0

        def flush(chunk: list[list[str]], numbers: list[int]) -> None:
            try:
                columns = [pa.array(values, pa.string()) for values in zip(*chunk, strict=True)]
            except UnicodeEncodeError:
                good = [index for index, values in enumerate(chunk) if _is_text(values)]
                for index in sorted(set(range(len(chunk))) - set(good)):
                    rows.reject(feed.table, f"{file.name}:{numbers[index]}", f"not {feed.encoding} text", "")
                if good:
                    flush([chunk[index] for index in good], [numbers[index] for index in good])
                return
            table = pa.table([pa.array(numbers, pa.int64()), *columns], names=["line_number", *header])
            database.register("chunk", table)
            database.execute("insert into lines select * from chunk")
            database.unregister("chunk")

        try:
            with open_bytes(file.path) as binary:
                text = io.TextIOWrapper(binary, encoding=feed.encoding, errors="surrogateescape", newline="")
                first = text.readline()
                header = next(csv.reader([first], delimiter=self._delimiter(feed, first)), [])
                header = [column.strip() for column in header]
                if not header or not first.strip():
                    return []
                if len(set(header)) < len(header) or "" in header:
                    self.run.problems.append(f"{file.name}: its first line has an empty or a repeated column name")
                    return []
                shape = ", ".join(f"{name(column)} varchar" for column in header)
                database.execute(f"create table lines (line_number bigint, {shape})")
                reader = csv.reader(text, delimiter=self._delimiter(feed, first))
                chunk: list[list[str]] = []
                numbers: list[int] = []
                while True:
                    number = reader.line_num + 2
                    try:
                        values = next(reader)
                    except StopIteration:
                        break
                    except csv.Error as error:
                        rows.reject(feed.table, f"{file.name}:{number}", f"not a CSV line ({error})", "")
                        continue
                    if not values:
                        continue
                    if len(values) != len(header):
                        reason = f"has {len(values)} fields where the first line has {len(header)}"
                        raw = values if _is_text(values) else ""
                        rows.reject(feed.table, f"{file.name}:{number}", reason, raw)
                        continue
                    chunk.append(values)
                    numbers.append(number)
                    if len(chunk) >= CSV_CHUNK_ROWS:
                        total += len(chunk)
                        flush(chunk, numbers)
                        self.run.advance(f"{file.name}, lines", total)
                        chunk, numbers = [], []
                if chunk:
                    flush(chunk, numbers)
        except EOFError:
            rows.reject(feed.table, file.name, "the compressed file breaks off", "")
        except OSError as error:
            raise TransientError(f"{file.name}: cannot be read ({type(error).__name__})") from error
        return header

    @staticmethod
    def _delimiter(feed: Feed, first: str) -> str:
        return feed.delimiter or max(",;\t|", key=first.count)

    # from texts to typed rows

    def _typed(
        self, database: duckdb.DuckDBPyConnection, feed: Feed, file: DataFile, columns: list[str]
    ) -> Iterator[Batch]:
        types = table_columns(feed.table)
        vocabulary = "orders" if feed.table == LINE_TABLE else feed.table
        skipping = _skip(feed, columns)
        if skipping != "false":
            (skipped,) = database.execute(f"select count(*) from lines where {skipping}").fetchall()[0]
            self.run.say("%s: %s rows are left out by 'skip'", file.name, skipped)
        texts, typed, reasons = [], [], []
        for target, spec in feed.columns.items():
            text = f"t.{name(target)}"
            ours = WORDS.get((vocabulary, target), ((), None))[0]
            texts.append(f"{_text(spec, columns, ours)} as {name(target)}")
            value = _type(text, types[target], spec, feed.timezone)
            if (vocabulary, target) in WORDS:
                words, other = WORDS[(vocabulary, target)]
                allowed = "(" + ", ".join(quote(word) for word in words) + ")"
                lowered = f"lower({text})"
                fallback = quote(other) if other else "null"
                value = f"case when {lowered} in {allowed} then {lowered} when {text} is not null then {fallback} end"
                if other is None:
                    what = f"{target} is not one of {', '.join(words)}"
                    reasons.append(
                        f"case when {text} is not null and {lowered} not in {allowed} then {quote(what)} end"
                    )
            elif types[target] != "text":
                what = f"{target} is not {WHAT_IT_IS[types[target]]}"
                reasons.append(f"case when {text} is not null and {value} is null then {quote(what)} end")
            elif target in ("email", "user_id"):
                value = f"nfc_normalize({value})"
            typed.append(f"{value} as {name(target)}")
            if target in REQUIRED.get(feed.table, ()):
                reasons.append(f"case when {text} is null then {quote(target + ' is empty')} end")
        database.execute(
            f"create temp table texts as select line_number, {', '.join(texts)} from lines t where not {skipping}"
        )
        self._report_words(database, feed, file, vocabulary)
        reason = f"concat_ws('; ', {', '.join(reasons)})" if reasons else "''"
        database.execute(
            f"create temp table typed as select line_number, {', '.join(typed)}, nullif({reason}, '') as why "
            "from texts t"
        )
        for table, query in self._queries(feed, vocabulary):
            for batch in batches(database, query):
                yield self.stamp(table, self._recode(batch, feed))
        wrong = (
            f"select {quote(feed.table)} as table_name, {quote(file.name + ':')} || line_number as location, "
            "why as reason, cast(to_json(l) as varchar) as raw_row from typed join lines l using (line_number) "
            "where why is not null order by line_number"
        )
        for batch in batches(database, wrong):
            yield self.stamp("rejected_rows", batch)

    def _queries(self, feed: Feed, vocabulary: str) -> Iterator[tuple[str, str]]:
        """(raw table, query over `typed`)."""
        mapped = feed.columns
        if feed.table == LINE_TABLE:
            yield from self._line_queries(feed)
            return
        ours = {column: name(column) for column in mapped if (vocabulary, column) not in DEFAULTS}
        source = quote(self.run.name)
        if feed.table in ("events", "event_items") and "event_key" in ours:  # the numbers of two shops may be the same
            ours["event_key"] = f"{source} || ':' || event_key as event_key"
        chosen = list(ours.values())
        for (table, column), default in DEFAULTS.items():
            if table == feed.table:
                chosen.append(
                    f"coalesce({name(column)}, {default}) as {name(column)}"
                    if column in mapped
                    else f"{default} as {column}"
                )
        made = {
            "events": (
                "event_key",
                "event_name",
                "visitor_id",
                "user_id",
                "session_id",
                "occurred_at",
                "page_location",
            ),
            "engagement": ("engagement_id", "type", "contact_id", "email", "visitor_id", "campaign_id", "occurred_at"),
        }
        if feed.table in made:
            key, *parts = made[feed.table]
            if key not in mapped:
                present = [f"coalesce(cast({name(part)} as varchar), '')" for part in parts if part in mapped]
                chosen.append(f"md5(concat_ws('|', {', '.join([source, *present])})) as {key}")
        if feed.table in ("order_items", "cart_items") and "line_id" not in mapped:
            chosen.append("cast(line_number as varchar) as line_id")
        yield feed.table, f"select {', '.join(chosen)} from typed where why is null"

    def _line_queries(self, feed: Feed) -> Iterator[tuple[str, str]]:
        """One line per item: the order is the sum of its lines, at the time of the first one."""
        mapped = feed.columns
        per_order = [
            f"first({name(c)} order by line_number) filter (where {name(c)} is not null) as {name(c)}"
            for c in raw_columns("orders")
            if c in mapped and c not in ("order_id", "ordered_at", "updated_at", "status", "is_test")
        ]
        for column in ("status", "is_test"):
            value = name(column) if column in mapped else "null"
            first = f"first({value} order by line_number) filter (where {value} is not null)"
            per_order.append(f"coalesce({first}, {DEFAULTS[('orders', column)]}) as {column}")
        version = "coalesce(updated_at, ordered_at)" if "updated_at" in mapped else "ordered_at"
        quantity = "coalesce(quantity, 1)" if "quantity" in mapped else "1"
        price = "coalesce(price, 0)" if "price" in mapped else "0"
        yield (
            "orders",
            f"select order_id, {', '.join(per_order)}, round(sum({quantity} * {price}), 4) as total_amount, "
            f"min(ordered_at) as ordered_at, max({version}) as updated_at "
            "from typed where why is null group by order_id",
        )
        own = [name(c) for c in raw_columns("order_items") if c in mapped and c not in ("line_id", "updated_at")]
        line_id = "line_id" if "line_id" in mapped else "null"
        yield (
            "order_items",
            f"select {', '.join(own)}, coalesce({line_id}, cast(row_number() over (partition by order_id "
            f"order by line_number) as varchar)) as line_id, max({version}) over (partition by order_id) as updated_at "
            "from typed where why is null",
        )

    def _report_words(self, database: duckdb.DuckDBPyConnection, feed: Feed, file: DataFile, vocabulary: str) -> None:
        """One line per column with words that are neither ours nor in its map."""
        for target in feed.columns:
            words, other = WORDS.get((vocabulary, target), ((), None))
            if other is None:
                continue
            allowed = ", ".join(quote(word) for word in words)
            unknown = database.execute(
                f"select {name(target)}, count(*) from texts where {name(target)} is not null "
                f"and lower({name(target)}) not in ({allowed}) group by 1 order by 2 desc, 1"
            ).fetchall()
            if unknown:
                shown = ", ".join(f"{str(word)[:40]} ({count})" for word, count in unknown[:10])
                self.run.say("%s: words for %s taken as '%s': %s", file.name, target, other, shown)

    def _recode(self, batch: pa.Table, feed: Feed) -> pa.Table:
        """What SQL cannot do: phone numbers to E.164, country names to codes."""
        import pyarrow as pa

        names = batch.column_names
        countries: list[str | None] = [feed.default_country] * batch.num_rows
        if "country" in names:
            codes = [country_code(text) for text in batch.column("country").to_pylist()]
            countries = [code or feed.default_country for code in codes]
            if feed.table == "contacts":
                batch = _replace(batch, "country", pa.array(codes, pa.string()))

        def phone(text: str | None, country: str | None) -> str | None:
            from include.identity.phone import to_e164

            return (to_e164(text, country) or text) if text else text

        if "phone" in names:
            phones = batch.column("phone").to_pylist()
            batch = _replace(batch, "phone", pa.array(map(phone, phones, countries), pa.string()))
        if "value" in names and "kind" in names and feed.table in ("suppressions", "contact_identifiers"):
            fix: dict[str, Callable[[str, str | None], str | None]] = {
                "email": lambda text, _: _normal(text),
                "domain": lambda text, _: _normal(text).lower().lstrip("@"),
                "phone": phone,
            }
            pairs = zip(batch.column("kind").to_pylist(), batch.column("value").to_pylist(), countries, strict=True)
            values = [fix[kind](text, land) if kind in fix and text else text for kind, text, land in pairs]
            batch = _replace(batch, "value", pa.array(values, pa.string()))
        return batch


def _replace(batch: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return batch.set_column(batch.column_names.index(column), column, values)


def _normal(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", text).strip()


def _is_text(values: list[str]) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for value in values for letter in value)


def _skip(feed: Feed, columns: list[str]) -> str:
    """The condition of rows that are left out."""
    parts = [
        f"upper(trim({name(column)})) glob {quote(pattern.upper())}"
        for column, patterns in feed.skip.items()
        if column in columns
        for pattern in patterns
    ]
    return f"coalesce({' or '.join(parts)}, false)" if parts else "false"


def _literal(value: Value) -> str:
    return quote(str(value).lower() if isinstance(value, bool) else str(value))


def _parquet_text(field: pa.Field[Any]) -> str:
    """A column as text. Whole numbers among doubles have no `.0`: ids are doubles where a row of a frame has none."""
    import pyarrow as pa

    column = name(field.name)
    text = f"cast({column} as varchar)"
    if not pa.types.is_floating(field.type):
        return text
    is_whole = f"{column} = trunc({column}) and abs({column}) < 1e15"
    return f"case when {is_whole} then cast(cast({column} as bigint) as varchar) else {text} end"


def _text(spec: Column, columns: list[str], ours: tuple[str, ...]) -> str:
    """The text of a mapped column, before it is typed. A word that is already ours needs no entry in the map."""
    if spec.const is not None:
        return _literal(spec.const)
    text = (
        f"nullif(trim(t.{name(spec.column)}), '')"
        if spec.column and spec.column in columns
        else "cast(null as varchar)"
    )
    if spec.map:
        cases = " ".join(
            f"when upper({text}) glob {quote(pattern.upper())} then {_literal(value)}"
            for pattern, value in spec.map.items()
        )
        if ours and spec.default is not None:
            cases += f" when lower({text}) in ({', '.join(quote(word) for word in ours)}) then {text}"
        other = _literal(spec.default) if spec.default is not None else text
        return f"case {cases} else {other} end"
    return f"coalesce({text}, {_literal(spec.default)})" if spec.default is not None else text


def _type(text: str, kind: str, spec: Column, timezone: str) -> str:
    """The typed value of a text, null where it is none."""
    if kind == "bigint":
        return (
            f"case when try_cast({text} as double) = floor(try_cast({text} as double)) "
            f"then cast(try_cast({text} as double) as bigint) end"
        )
    if kind == "double":
        return f"case when isfinite(try_cast({text} as double)) then try_cast({text} as double) end"
    if kind == "boolean":
        return (
            f"case when lower({text}) in ('true', 't', 'yes', 'y', '1') then true "
            f"when lower({text}) in ('false', 'f', 'no', 'n', '0') then false end"
        )
    if kind == "timestamp":
        local = f"try_strptime({text}, {quote(spec.format)})" if spec.format else f"try_cast({text} as timestamp)"
        shifted = f"timezone('UTC', timezone({quote(timezone)}, {local}))"
        return (
            f"case when regexp_full_match({text}, '\\d{{13}}') then make_timestamp(cast({text} as bigint) * 1000) "
            f"when regexp_full_match({text}, '\\d{{10}}') then make_timestamp(cast({text} as bigint) * 1000000) "
            f"when regexp_matches({text}, {quote(OFFSET)}) "
            f"then timezone('UTC', try_cast({text} as timestamptz)) else {shifted} end"
        )
    return text
