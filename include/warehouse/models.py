"""The SQL files: what there is, what each reads, and in which order they are built.

A file is a table, its folder is the schema. What it reads is found in its SQL, so nobody keeps a list. Data moves
left to right (raw, staging, core, segments); a file that reads the other way, or a table nobody makes, is an error with
file and line. A DAG file calls this when it is parsed, so it is kept quick and remembers files that did not change.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from sqlglot import Dialect, exp

from include.errors import ConfigurationError
from include.settings import get_settings
from include.warehouse.render import parse, render
from include.warehouse.tables import metadata
from include.warehouse.touched import FILLED_BY, FOLLOWS

__all__ = ["Model", "build_order", "check_model", "load_models", "read_model", "render"]

log = logging.getLogger(__name__)

FOLDERS = ("staging", "core", "segments", "reports", "sync")
_SCHEMAS = ("raw", *FOLDERS)
_MAY_READ = {
    "staging": {"raw", "staging"},
    "core": {"staging", "core", "sync"},
    "segments": {"core"},
}
_CORE_MAY_READ_OF_SYNC = {"sync.opt_outs", "sync.erased_hashes"}
_DIRECTIVE = re.compile(r"^\s*materialized:\s*(\w+)(?: by (\w+))?\s*$", re.MULTILINE)
_FILE_NAME = re.compile(r"[a-z][a-z0-9_]*")

Materialized = Literal["table", "view", "incremental", "folded", "work"]


@dataclass(frozen=True)
class Model:
    """One SQL file. `description` is its header comment without the dashes.

    `table` is rebuilt whole; `incremental` keeps its rows but those whose `key` was touched; `folded` (smallest and
    largest values by group) takes new rows into those it has; `work` holds what the last build worked on: everything
    after a full build, else the touched part; `view` holds nothing. `follows` are tables it must be built after, though
    it does not read them: they fill the keys it asks for.
    """

    name: str
    path: Path
    sql: str
    description: str
    depends_on: frozenset[str]
    materialized: Materialized = "table"
    key: str | None = None
    follows: frozenset[str] = frozenset()

    @property
    def schema(self) -> str:
        """The folder it is in."""
        return self.name.split(".")[0]

    @property
    def where(self) -> str:
        """The file as it is named in errors."""
        return _short(self.path)


_by_file: dict[tuple[Path, int, int], tuple[Model, list[tuple[str, int]]]] = {}


def load_models(sql_dir: Path | None = None) -> dict[str, Model]:
    """All models by name, in the order of the folders.

    A segment that cannot be read is logged and left out: it stops its own audience (whose file then names the mistake),
    never the others. Any other file that cannot be read is a ConfigurationError.
    """
    root = sql_dir or get_settings().sql_dir
    found: dict[str, tuple[Model, list[tuple[str, int]]]] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.sql")):
            with _own_trouble(folder):
                model, reads = _read_once(path, folder)
                found[model.name] = (model, reads)
    models = {}
    for name, (model, reads) in found.items():
        with _own_trouble(model.schema):
            _check_reads(model, reads, found.keys())
            models[name] = model
    return models


@contextmanager
def _own_trouble(folder: str) -> Iterator[None]:
    """Let only the mistakes pass that concern everybody."""
    try:
        yield
    except ConfigurationError as error:
        if folder != "segments":
            raise
        log.error("left out: %s", error)


def read_model(path: Path) -> Model:
    """One file by itself, without a look at whether the tables it reads exist."""
    return _read_once(path, path.parent.name)[0]


def check_model(path: Path) -> Model:
    """One file, read in full among the others; ConfigurationError with file and line when it cannot be built."""
    model, _ = _read_once(path, path.parent.name)
    reads = _tables_read(parse(model.sql, model.where), model.where)
    _check_reads(model, reads, _names(path.parent.parent))
    return replace(model, depends_on=frozenset(name for name, _ in reads))


def _names(root: Path) -> set[str]:
    """The models there are, by their files' names alone: reading all of them takes ten times as long as one."""
    return {f"{folder}.{path.stem}" for folder in FOLDERS for path in (root / folder).glob("*.sql")}


def _read_once(path: Path, folder: str) -> tuple[Model, list[tuple[str, int]]]:
    stat = path.stat()
    key = (path, stat.st_mtime_ns, stat.st_size)
    if key not in _by_file:
        _by_file[key] = _read(path, folder)
    return _by_file[key]


def build_order(models: Mapping[str, Model] | Iterable[Model]) -> list[str]:
    """Names so that everything comes after what it reads; ConfigurationError naming the models of a cycle."""
    listed = models if isinstance(models, Mapping) else {model.name: model for model in models}
    done: list[str] = []
    finished: set[str] = set()
    trail: list[str] = []

    def visit(name: str) -> None:
        if name in finished:
            return
        if name in trail:
            circle = [*trail[trail.index(name) :], name]
            raise ConfigurationError(f"these SQL files read each other in a circle: {' > '.join(circle)}")
        trail.append(name)
        for needed in sorted((listed[name].depends_on | listed[name].follows) & listed.keys()):
            visit(needed)
        trail.pop()
        finished.add(name)
        done.append(name)

    for name in listed:
        visit(name)
    return done


def _read(path: Path, folder: str) -> tuple[Model, list[tuple[str, int]]]:
    where = _short(path)
    if not _FILE_NAME.fullmatch(path.stem):
        raise ConfigurationError(f"{where}: a file name is a table name: small letters, digits and underscores")
    sql = path.read_text(encoding="utf-8")
    description = _header(sql)
    directive = _DIRECTIVE.search(description)
    materialized = directive[1] if directive else "table"
    key = directive[2] if directive else None
    if materialized not in get_args(Materialized):
        raise ConfigurationError(
            f"{where}: materialized is {', '.join(get_args(Materialized))}; '{materialized}' is none of them"
        )
    if (materialized in ("incremental", "folded")) is (key is None):
        raise ConfigurationError(
            f"{where}: an incremental or folded model has a key, no other has: `-- materialized: incremental by key`"
        )
    if folder == "sync" and materialized != "view":
        raise ConfigurationError(f"{where}: a file in sync/ is a view over the ledger; add `-- materialized: view`")
    # A segment is anybody's SQL and is read in full; our own files are read by their tokens, six times quicker, and a
    # test holds both readings against each other.
    reads = _tables_read(parse(sql, where), where) if folder == "segments" else _tables_named(sql)
    model = Model(
        name=f"{folder}.{path.stem}",
        path=path,
        sql=sql,
        description=_DIRECTIVE.sub("", description).strip(),
        depends_on=frozenset(name for name, _ in reads),
        materialized=cast(Materialized, materialized),
        key=key,
        follows=FOLLOWS.get(f"{folder}.{path.stem}", frozenset())
        | frozenset(table for name, table in FILLED_BY.items() if f"{name}(" in sql),
    )
    return model, reads


def _header(sql: str) -> str:
    lines = []
    for line in sql.splitlines():
        text = line.strip()
        if text.startswith("--"):
            lines.append(text[2:].removeprefix(" "))
        elif text or lines:
            break
    return "\n".join(lines).strip()


def _tables_named(sql: str) -> list[tuple[str, int]]:
    """`schema.table` and its line for every name that begins with one of our schemas."""
    tokens = Dialect.get_or_raise("duckdb").tokenize(sql)
    reads: dict[str, int] = {}
    for schema, dot, table in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if dot.text == "." and schema.text.lower() in _SCHEMAS:
            reads.setdefault(f"{schema.text}.{table.text}".lower(), table.line)
    return list(reads.items())


def _tables_read(tree: exp.Expr, where: str) -> list[tuple[str, int]]:
    """`schema.table` and its line for everything read that is not a CTE in whose scope it stands."""
    reads: dict[str, int] = {}
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            continue  # a table function
        line = int(table.this.meta.get("line", 1))
        if table.db:
            name = f"{table.db}.{table.name}".lower()
            reads.setdefault(name, line)
        elif not _is_cte(table):
            raise ConfigurationError(f"{where}:{line}: '{table.name}' needs its schema (for example core.{table.name})")
    return list(reads.items())


def _is_cte(table: exp.Table) -> bool:
    node: exp.Expr | None = table
    while node is not None:
        with_ = node.args.get("with_") or node.args.get("with")
        if isinstance(with_, exp.With) and any(cte.alias.lower() == table.name.lower() for cte in with_.expressions):
            return True
        node = node.parent
    return False


def _check_reads(model: Model, reads: list[tuple[str, int]], models: Iterable[str]) -> None:
    allowed = _MAY_READ.get(model.schema)
    if allowed is None:
        return
    known = {*models, *metadata.tables.keys()}
    for name, line in reads:
        schema = name.split(".")[0]
        place = f"{model.where}:{line}"
        if schema not in _SCHEMAS:
            near = difflib.get_close_matches(schema, _SCHEMAS, 1)
            if model.schema == "segments" and not near:
                continue  # a table that somebody else builds, with dbt for example
            hint = f"; did you mean {near[0]}?" if near else f"; ours are {', '.join(_SCHEMAS)}"
            raise ConfigurationError(f"{place}: there is no schema '{schema}'{hint}")
        if name == model.name:
            raise ConfigurationError(f"{place}: {name} reads itself")
        if schema not in allowed or (schema == "sync" and name not in _CORE_MAY_READ_OF_SYNC):
            may = "what others load" if model.schema == "staging" else ", ".join(sorted(allowed - {"sync"}))
            raise ConfigurationError(
                f"{place}: {model.name} reads {name}, but data moves left to right: {model.schema} reads from {may}"
            )
        if name not in known:
            same = [other for other in known if other.split(".")[0] in allowed]
            near = difflib.get_close_matches(name, same, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"{place}: there is no table {name}{hint}")


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])
