"""What a segment's SQL says about itself, read from its text: columns, parameters, tables. No database is asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlglot import exp

from include.errors import ConfigurationError
from include.settings import ROOT, Settings
from include.warehouse.models import check_model
from include.warehouse.render import parse


@dataclass(frozen=True)
class SegmentSql:
    """`columns` is None where the text does not tell them (`select *` from a table)."""

    columns: tuple[str, ...] | None
    params: frozenset[str]
    durations: frozenset[str]  # params that are added to or taken from a time
    lists: frozenset[str]  # params used as `in (:name)`
    reads: frozenset[str]
    has_stages: bool


def setting_names() -> frozenset[str]:
    """Placeholders that are filled by the project and not by an audience."""
    return frozenset({"as_of", *Settings.model_fields})


def segment_names(sql_dir: Path) -> list[str]:
    """The segments there are."""
    return sorted(path.stem for path in (sql_dir / "segments").glob("*.sql"))


def read_segment(sql_dir: Path, name: str) -> SegmentSql:
    """Read `segments/<name>.sql`; ConfigurationError with its line when the SQL itself is wrong."""
    path = sql_dir / "segments" / f"{name}.sql"
    check_model(path)
    return _read(path, path.stat().st_mtime_ns)


def display_path(path: Path) -> str:
    """A path as errors name it: from the project's folder where it lies inside."""
    resolved = path.resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else str(path)


@lru_cache(maxsize=256)
def _read(path: Path, _changed: int) -> SegmentSql:
    where = display_path(path)
    try:
        tree = parse(path.read_text(encoding="utf-8"), where)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where}: the file is not UTF-8 text") from error
    columns = _columns(tree)
    missing = [name for name in ("profile_id", "entered_at") if columns is not None and name not in columns]
    if missing:
        raise ConfigurationError(f"{where}: a segment must select {' and '.join(missing)}")
    placeholders = list(tree.find_all(exp.Placeholder))
    own = {str(node.this) for node in placeholders} - setting_names()
    return SegmentSql(
        columns=columns,
        params=frozenset(own),
        durations=frozenset(str(node.this) for node in placeholders if _is_duration(node)) & own,
        lists=frozenset(str(node.this) for node in placeholders if _is_list(node)) & own,
        reads=frozenset(f"{table.db}.{table.name}" for table in tree.find_all(exp.Table) if table.db),
        has_stages=any(str(call.this).lower() == "stage_of" for call in tree.find_all(exp.Anonymous)),
    )


def _columns(tree: exp.Expr) -> tuple[str, ...] | None:
    """The output columns, followed through `select * from <cte>`."""
    ctes = {cte.alias: cte.this for cte in tree.find_all(exp.CTE)}
    seen: set[str] = set()
    query: exp.Expr | None = tree
    while isinstance(query, exp.Query):
        names = tuple(query.named_selects)
        if "*" not in names:
            return names
        source = query.find(exp.From)
        table = source.this if names == ("*",) and source else None
        if not isinstance(table, exp.Table) or table.db or table.name in seen or query.args.get("joins"):
            return None
        seen.add(table.name)
        query = ctes.get(table.name)
    return None


def _is_duration(node: exp.Placeholder) -> bool:
    parent = node.parent
    if not isinstance(parent, exp.Add | exp.Sub):
        return False
    other = parent.expression if parent.this is node else parent.this
    if isinstance(other, exp.Placeholder):
        return str(other.this) == "as_of"
    return isinstance(other, exp.Column) and other.name.endswith("_at")


def _is_list(node: exp.Placeholder) -> bool:
    return isinstance(node.parent, exp.In) and node.arg_key == "expressions"
