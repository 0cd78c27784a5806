"""Runs the SQL cases: `tests/sql/<schema>/<table>/<case>.yaml` says what is given and what must come out.

Every model is built over nothing once; a case is then one transaction on that database, taken back at its end: its
given rows, and every model that stands between the given tables and the expected ones. Given tables are never rebuilt,
and a model over empty tables is left as it is. Only the columns a case names are compared, in any order of rows; the
number of rows must be the same. Test modules say with ENGINE where their cases run.

    about: Ana bought in the shop by phone; her web cart is closed
    rule: 10                                  # of the settled rules, optional
    as_of: 2026-03-10 12:00
    params: {idle_for: 1h}                    # optional; over those of the shipped audience
    stages: {reminder: 1h}                    # optional; over those of the shipped audience
    settings: {company_domains: [x.example]}  # optional; over include/settings.py
    given: {raw.events: [{event_key: e1, ...}]}
    expect: {core.events: [{profile_of: {email: ana@x.example}, event_name: purchase}]}

`profile_of` stands for the profile_id of an identifier (email, phone, visitor_id, user_id, contact_id as
'source:id'), looked up in core.identifiers after the build; `not_profile_of` says that it is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml

from include.errors import ConfigurationError
from include.settings import ROOT, Settings
from include.warehouse.build import run_model, setting_params
from include.warehouse.engine import Warehouse
from include.warehouse.models import FOLDERS, Model, build_order, read_model
from include.warehouse.tables import metadata
from tests.postgres import PostgresServer

CASES = Path(__file__).resolve().parent
EMPTY_AS_OF = datetime(2026, 1, 1)
KEYS = {"about", "rule", "as_of", "params", "stages", "settings", "given", "expect"}
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
PERSON = {"profile_of", "not_profile_of"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CaseError(AssertionError):
    """A case that says something impossible, or whose expectation does not hold."""


@dataclass
class Template:
    """Every table as it looks when nothing has happened: its columns, the models that make it, and where it is."""

    warehouse: Warehouse
    models: dict[str, Model] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)


def case_paths() -> list[Path]:
    return sorted(CASES.glob("*/*/*.yaml"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_path" in metafunc.fixturenames:
        paths = case_paths()
        ids = [f"{path.parts[-3]}.{path.parts[-2]}/{path.stem}" for path in paths]
        metafunc.parametrize("case_path", paths, ids=ids)


@pytest.fixture(scope="module")
def template(request: pytest.FixtureRequest) -> Iterator[Template]:
    if getattr(request.module, "ENGINE", "duckdb") == "duckdb":
        yield make_template(ROOT / "sql", Warehouse("duckdb://"))
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create()
    warehouse = Warehouse(server.url_of(name))
    yield make_template(ROOT / "sql", warehouse)
    warehouse.close()
    server.drop(name)


@pytest.fixture(scope="module")
def run_case(template: Template) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        try:
            check_case(load_case(path), template)
        except CaseError as error:
            pytest.fail(str(error), pytrace=False)

    return run


# reading a case


def load_case(path: Path) -> dict[str, Any]:
    case = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    if not isinstance(case, dict):
        raise CaseError(f"{path.name}: a case is a mapping with about, as_of, given and expect")
    missing = [key for key in ("about", "as_of", "given", "expect") if key not in case]
    if missing:
        raise CaseError(f"{path.name}: it has no {', '.join(missing)}")
    unknown = sorted(set(case) - KEYS)
    if unknown:
        raise CaseError(f"{path.name}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(KEYS))}")
    if not case["expect"]:
        raise CaseError(f"{path.name}: it expects nothing; name at least one table ([] means that it is empty)")
    return {**case, "as_of": moment(case["as_of"], "as_of"), "given": case["given"] or {}}


def moment(value: Any, what: str) -> datetime:
    """A time in UTC without offset, from YAML's own type or from text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise CaseError(f"{what}: '{value}' is not a time; write it like 2026-03-10 12:00") from error
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    raise CaseError(f"{what}: {value!r} is not a time")


def duration(value: Any) -> Any:
    """30m, 24h, 7d as a timedelta; anything else as it is."""
    if isinstance(value, str) and value[:-1].isdigit() and value[-1:] in UNITS:
        return timedelta(**{UNITS[value[-1]]: int(value[:-1])})
    return value


def durations(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: duration(value) for name, value in (values or {}).items()}


@cache
def shipped(segment: str) -> tuple[dict[str, Any], dict[str, timedelta]]:
    """Params and stages of the shipped audience of a segment, empty when there is none."""
    folder = ROOT / "include" / "audiences" / "definitions"
    for path in sorted(folder.glob("*.y*ml"), key=lambda found: found.stem != segment):
        audience = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        if isinstance(audience, dict) and audience.get("segment", path.stem) == segment:
            return durations(audience.get("params")), durations(audience.get("stages"))
    return {}, {}


# building


def make_template(sql_dir: Path, warehouse: Warehouse) -> Template:
    """Build every model over nothing. A model that fails is remembered with its error, for the cases that need it."""
    made = Template(warehouse)
    for folder in FOLDERS:
        for path in sorted((sql_dir / folder).glob("*.sql")):
            try:
                made.models[f"{folder}.{path.stem}"] = read_model(path)
            except ConfigurationError as error:
                made.errors[f"{folder}.{path.stem}"] = error
    warehouse.ensure_tables()
    settings = settings_of({})
    for name in build_order(made.models):
        model = made.models[name]
        params, stages = params_of(model, {"as_of": EMPTY_AS_OF}, settings)
        try:
            with warehouse.session() as session:
                made.rows[name] = run_model(warehouse, session, model, params, stages)
        except (ConfigurationError, sqlalchemy.exc.SQLAlchemyError) as error:
            made.errors[name] = error
    with warehouse.session() as session:
        made.columns = warehouse._all_columns(session)
    return made


def settings_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """The project settings as SQL sees them, with those that the case sets."""
    named = case.get("settings") or {}
    unknown = sorted(set(named) - set(Settings.model_fields))
    if unknown:
        raise CaseError(f"settings: there is no {', '.join(unknown)} in include/settings.py")
    given = {
        name: duration(value) if Settings.model_fields[name].annotation is timedelta else value
        for name, value in named.items()
    }
    return setting_params(Settings(**given))


def params_of(
    model: Model, case: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, timedelta] | None]:
    params = {**settings, "as_of": case["as_of"]}
    if model.schema != "segments":
        return params, None
    usual, stages = shipped(model.path.stem)
    return params | usual | durations(case.get("params")), stages | durations(case.get("stages"))


def needed(targets: set[str], given: set[str], template: Template) -> set[str]:
    """The models between the given tables and the targets."""
    found: set[str] = set()
    open_ends = sorted(targets)
    while open_ends:
        name = open_ends.pop()
        if name in given or name in found or name in metadata.tables:
            continue
        if name not in template.models:
            if name in template.errors:
                raise template.errors[name]
            raise CaseError(f"there is no table {name}: no file sql/{name.replace('.', '/')}.sql")
        found.add(name)
        open_ends.extend(template.models[name].depends_on)
    return found


def build_case(session: sqlalchemy.Connection, case: Mapping[str, Any], template: Template) -> None:
    """Put the given rows where they belong and build everything the expectation needs."""
    given = set(case["given"])
    both = sorted(given & set(case["expect"]))
    if both:
        raise CaseError(f"{', '.join(both)} is given and expected; a given table is never rebuilt")
    targets = set(case["expect"])
    if any(PERSON & set(row) for rows in case["expect"].values() for row in rows or ()):
        targets.add("core.identifiers")
    wanted = needed(targets, given, template)
    settings = settings_of(case)
    counts = dict.fromkeys(metadata.tables, 0) | {name: len(rows or ()) for name, rows in case["given"].items()}
    for name, rows in case["given"].items():
        columns = template.columns.get(name)
        if columns is None:
            if name in template.errors:
                raise template.errors[name]
            raise CaseError(f"given: there is no table {name}")
        if template.rows.get(name):
            session.exec_driver_sql(f"delete from {name}")
        template.warehouse.insert(name, [typed_row(name, row, columns) for row in rows or ()], connection=session)
    for name in build_order({name: template.models[name] for name in wanted}):
        model = template.models[name]
        if template.rows.get(name) == 0 and not any(counts[other] for other in model.depends_on):
            counts[name] = 0  # it was built over nothing before
            continue
        params, stages = params_of(model, case, settings)
        counts[name] = run_model(template.warehouse, session, model, params, stages)
        if model.materialized == "view":  # nobody has counted it
            counts[name] = sum(counts[other] for other in model.depends_on)


def typed_row(table: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    unknown = sorted(set(row) - set(columns))
    if unknown:
        raise CaseError(f"{table} has no column {', '.join(unknown)}; it has {', '.join(columns)}")
    return {name: typed(value, columns[name], f"{table}.{name}") for name, value in row.items()}


def typed(value: Any, kind: str, what: str) -> Any:
    """A YAML value as its column holds it; what YAML may have misread is refused."""
    if value is None:
        return None
    if kind == "timestamp":
        return moment(value, what)
    if kind == "text":
        if isinstance(value, bool | float | date):
            raise CaseError(f"{what} is text, YAML read {value!r} as something else; put it in quotes")
        return str(value)
    if kind == "boolean":
        if not isinstance(value, bool):
            raise CaseError(f"{what}: {value!r} is not true or false")
        return value
    if kind == "date":
        return moment(value, what).date()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CaseError(f"{what}: {value!r} is not a number")
    return value


# comparing


def check_case(case: Mapping[str, Any], template: Template) -> None:
    """Build and compare; CaseError with both sides side by side where they differ."""
    failures = []
    with template.warehouse.session() as session:
        try:
            build_case(session, case, template)
            for name, rows in case["expect"].items():
                columns = template.warehouse.columns(name, connection=session) or {}
                found = template.warehouse.read(f"select * from {name}", connection=session)
                failure = compare(
                    name, list(rows or ()), found, columns, lambda who: profile_of(template, session, who)
                )
                if failure:
                    failures.append(failure)
        finally:
            session.rollback()
    if failures:
        raise CaseError("\n\n".join([case["about"].strip(), *failures]))


def profile_of(template: Template, session: sqlalchemy.Connection, who: Mapping[str, str]) -> str | None:
    """The profile of an identifier; None when it is quarantined."""
    found = set()
    for kind, value in who.items():
        rows = template.warehouse.read(
            "select profile_id from core.identifiers where identifier_kind = :kind and identifier_value = :value",
            kind=kind,
            value=str(value),
            connection=session,
        )
        if not rows:
            known = template.warehouse.read(
                "select identifier_kind, identifier_value from core.identifiers "
                "order by identifier_kind, identifier_value",
                connection=session,
            )
            listed = ", ".join(f"{row['identifier_kind']} {row['identifier_value']}" for row in known)
            raise CaseError(f"core.identifiers does not know {kind} {value}; it knows: {listed or 'nobody'}")
        found |= {row["profile_id"] for row in rows}
    if len(found) > 1:
        raise CaseError(f"{dict(who)} are {len(found)} different profiles")
    return found.pop()


def compare(
    table: str,
    expected: list[dict[str, Any]],
    found: list[dict[str, Any]],
    columns: Mapping[str, str],
    resolve: Callable[[Mapping[str, str]], str | None],
) -> str | None:
    """None when the rows are the same, else both sides as aligned text."""
    wanted = []
    for row in expected:
        plain = {name: value for name, value in row.items() if name not in PERSON}
        wanted_row: dict[str, Any] = typed_row(table, plain, columns)
        for key in PERSON & set(row):
            if "profile_id" not in columns:
                raise CaseError(f"{table} has no profile_id, so {key} says nothing")
            person = resolve(row[key])
            wanted_row["profile_id"] = person if key == "profile_of" else Other(person)
        wanted.append(wanted_row)
    pairs = match(wanted, found)
    if len(wanted) == len(found) and len(pairs) == len(wanted):
        return None
    shown = [name for name in columns if any(name in row for row in wanted)] or list(columns)[:8]
    matched_found = set(pairs.values())
    lines = [("   ", *shown)]
    for index, row in enumerate(wanted):
        if index not in pairs:
            lines.append(("- expected", *(show(row[name]) if name in row else "" for name in shown)))
    for index, row in enumerate(found):
        if index not in matched_found:
            lines.append(("+ found", *(show(row[name]) for name in shown)))
    for index in sorted(matched_found):
        lines.append(("  as expected", *(show(found[index][name]) for name in shown)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown) + 1)]
    text = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return f"{table}: expected {len(wanted)} rows, found {len(found)}\n{text}"


@dataclass(frozen=True)
class Other:
    """Any profile but this one."""

    profile_id: str | None


def match(wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[int, int]:
    """The largest pairing of expected rows with found rows (a row that says little may fit several)."""
    taken: dict[int, int] = {}

    def place(index: int, tried: set[int]) -> bool:
        for other, row in enumerate(found):
            if other in tried or not all(same(value, row[name]) for name, value in wanted[index].items()):
                continue
            tried.add(other)
            if other not in taken or place(taken[other], tried):
                taken[other] = index
                return True
        return False

    for index in range(len(wanted)):
        place(index, set())
    return {index: other for other, index in taken.items()}


def same(expected: Any, found: Any) -> bool:
    if isinstance(expected, Other):
        return bool(found != expected.profile_id)
    if isinstance(found, float | Decimal) and isinstance(expected, int | float) and not isinstance(expected, bool):
        return bool(float(found) == pytest.approx(float(expected), rel=1e-9, abs=1e-9))
    return bool(expected == found and isinstance(expected, bool) == isinstance(found, bool))


def show(value: Any) -> str:
    if isinstance(value, Other):
        return f"not {value.profile_id}"
    return "null" if value is None else str(value)
