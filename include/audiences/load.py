"""Reads the audience files and says everything that is wrong with them: file, line, what was found, what was meant.

A broken file never stops the others: `load_audiences()` returns the good ones and one list of errors for all. DAG
files call it when Airflow parses them, so it needs no database, no connection and no vendor's library.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from include.audiences.durations import format_duration
from include.audiences.schema import TARGET_KEYS, Audience, ChannelPolicy, FrequencyCap, Guard, Target
from include.audiences.segment_sql import SegmentSql, display_path, read_segment, segment_names, setting_names
from include.audiences.wording import did_you_mean, suggest
from include.destinations.base import Destination, destination_class
from include.errors import AudienceFileError, ConfigurationError
from include.settings import Settings, get_settings

Location = tuple[str | int, ...]
Problem = tuple[Location, str]

_BLOCKS: Mapping[str, type[BaseModel]] = {"channels": ChannelPolicy, "frequency_cap": FrequencyCap, "guard": Guard}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_QUICK_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAME_RULE = "small letters, digits and underscores, a letter first, at most 50 of them"


@dataclass(frozen=True)
class Loaded:
    """What a folder of audience files holds."""

    audiences: dict[str, Audience] = field(default_factory=dict)
    errors: list[AudienceFileError] = field(default_factory=list)

    @property
    def destinations(self) -> list[str]:
        """The destinations that some audience goes to, by name."""
        return sorted({target.to for audience in self.audiences.values() for target in audience.destinations})

    def audience(self, name: str) -> Audience:
        """One audience; ConfigurationError with the errors of its file, or with the names there are."""
        if name in self.audiences:
            return self.audiences[name]
        broken = [str(error) for error in self.errors if Path(error.path).stem == name]
        if broken:
            raise ConfigurationError("\n".join(broken))
        raise ConfigurationError(f"there is no audience '{name}'{suggest(name, self.audiences)}")


def load_audiences(folder: Path | None = None) -> Loaded:
    """Read every audience file of a folder (default: the project's)."""
    settings = get_settings()
    root = folder or settings.audiences_dir
    loaded = Loaded()
    labels: dict[str, str] = {}
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        audience, errors = _read_file(path, settings)
        if audience is not None:
            errors = list(_clashes(audience, loaded, labels))
            if not errors:
                loaded.audiences[audience.name] = audience
                labels[audience.label.casefold()] = audience.name
        loaded.errors.extend(errors)
    return loaded


def check_columns(audience: Audience, columns: Iterable[str]) -> None:
    """See that a built segment has every column the audience maps; AudienceFileError with the line otherwise."""
    known = tuple(columns)
    for index, target in enumerate(audience.destinations):
        for location, message in _missing_columns(index, target, known):
            raise AudienceFileError(message, path=audience.path, line=audience.line(*location))


def known_destinations() -> list[str]:
    """The destinations there are, by file name; a module that holds none (shared transport, say) is left out."""
    folder = Path(inspect.getfile(Destination)).parent
    return [path.stem for path in sorted(folder.glob("*.py")) if isinstance(_find_destination(path.stem), type)]


def _find_destination(name: str) -> type[Destination] | str:
    """The class of a destination, or why there is none."""
    try:
        found = destination_class(name)
    except (ConfigurationError, ImportError) as error:
        return str(error)
    return f"'{name}' is no destination" if inspect.isabstract(found) else found


# ---- one file: text, YAML, schema, second look


@dataclass(frozen=True)
class _Document:
    """A YAML file as data, with the line of every key and list entry."""

    data: Any
    lines: dict[Location, int]
    problems: list[Problem]


def _read_file(path: Path, settings: Settings) -> tuple[Audience | None, list[AudienceFileError]]:
    where = display_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None, [AudienceFileError("the file is not UTF-8 text", path=where)]
    except OSError as error:
        return None, [AudienceFileError(f"the file cannot be read: {error.strerror}", path=where)]
    try:
        document = _read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line, what = _yaml_trouble(error, text)
        return None, [AudienceFileError(f"this is not valid YAML: {what}", path=where, line=line)]
    audience, problems = _validate(path.stem, document, settings)
    if not problems and audience is not None:
        audience._path, audience._lines = where, document.lines
        return audience, []
    placed = {(_line(document.lines, location), message) for location, message in problems}
    return None, [AudienceFileError(message, path=where, line=line) for line, message in sorted(placed)]


def _read_yaml(text: str) -> _Document:
    lines: dict[Location, int] = {}
    problems: list[Problem] = []

    def walk(node: yaml.Node | None, location: Location) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                place = (*location, str(key.value))
                if place in lines and key.value != "<<":
                    first = lines[place]
                    problems.append((place, f"'{key.value}' stands here twice, first in line {first}; keep one"))
                lines[place] = key.start_mark.line + 1
                walk(value, place)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                lines[(*location, index)] = item.start_mark.line + 1
                walk(item, (*location, index))

    try:
        loader = _QUICK_YAML(text)
        node = loader.get_single_node()
    except (yaml.YAMLError, ValueError):
        loader = yaml.SafeLoader(text)  # takes ten times as long, and says better what is wrong
        node = loader.get_single_node()
    walk(node, ())
    return _Document(None if node is None else loader.construct_document(node), lines, problems)


def _yaml_trouble(error: Exception, text: str) -> tuple[int | None, str]:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        return (mark.line + 1 if mark else None), what
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, int(error.position)) + 1, "it holds a character that YAML does not allow"
    if isinstance(error, RecursionError):
        return None, "it is nested too deeply, or refers to itself"
    return None, str(error)


def _validate(name: str, document: _Document, settings: Settings) -> tuple[Audience | None, list[Problem]]:
    problems = list(document.problems)
    if not _NAME.fullmatch(name):
        problems.append(((), f"the file name '{name}' becomes a table and a DAG: {_NAME_RULE}"))
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else "does not hold keys with values"
        return None, [*problems, ((), f"the file {what}; see docs/audiences.md for a complete one")]
    data = {key if isinstance(key, str) else repr(key): value for key, value in document.data.items()}
    if "name" in data:
        problems.append((("name",), "an audience has no key 'name': its name is the name of the file"))
        del data["name"]
    data["name"] = name if _NAME.fullmatch(name) else "unnamed"
    wrong: set[str] = set()
    try:
        audience = Audience.model_validate(data)
    except ValidationError as error:
        for entry in error.errors():
            problems.append(_problem(entry))
            wrong.add(str(entry["loc"][0]))
        # What can be read gets its second look all the same, so that one pass shows everything.
        stand_in = {"label": "-", "description": "-", "owner": "-", "segment": "x", "destinations": [{"to": "x"}]}
        usable = {key: value for key, value in data.items() if key not in wrong}
        audience = Audience.model_validate({**stand_in, **usable})
    problems.extend(_second_look(audience, wrong, settings))
    return (None if problems else audience), problems


def _line(lines: Mapping[Location, int], location: Location) -> int:
    """The line of a place, or of what holds it."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


# ---- what pydantic found, in our words


def _problem(error: Mapping[str, Any]) -> Problem:
    location: Location = tuple(part for part in error["loc"] if part != "[key]")
    context = error.get("ctx") or {}
    if "item" in context:
        location = (*location, context["item"])
    here = ".".join(str(part) for part in location if not isinstance(part, int))
    found = error["input"]
    kind = error["type"]
    if kind == "missing":
        return location, f"'{here}' is missing{_purpose(location)}"
    if kind == "extra_forbidden":
        block = _BLOCKS.get(str(location[0])) if len(location) > 1 else Audience
        keys = [key for key in (block or Audience).model_fields if key != "name"]
        return location, f"there is no key '{here}'{suggest(str(location[-1]), keys)}"
    if kind == "literal_error":
        words = re.findall(r"'([^']+)'", str(context.get("expected", "")))
        return location, f"{here}: {found!r} is not one of {', '.join(words)}{did_you_mean(str(found), words)}"
    if kind == "value_error":
        return location, f"{here}: {context['error']}"
    plain = {
        "string_type": f"{found!r} is no text; put it in quotes",
        "string_pattern_mismatch": f"{found!r} is no name: {_NAME_RULE}",
        "int_type": f"{found!r} is no whole number",
        "bool_type": f"{found!r} is neither true nor false",
        "greater_than_equal": f"{found!r} is less than {context.get('ge')}",
        "too_short": "needs at least one entry, such as - {to: mailchimp, audience: Newsletter}",
        "list_type": "must be a list: one entry a line, each after a dash",
        "dict_type": "must be names with values, such as {email: {consent: email}}",
        "model_type": "must be keys with values",
    }
    return location, f"{here}: {plain.get(kind, error['msg'])}"


def _purpose(location: Location) -> str:
    known = Audience.model_fields.get(str(location[0])) if len(location) == 1 else None
    return f": {known.description}" if known and known.description else ""


# ---- second look: what one value alone does not tell


def _clashes(audience: Audience, loaded: Loaded, labels: Mapping[str, str]) -> Iterator[AudienceFileError]:
    if audience.name in loaded.audiences:
        other = loaded.audiences[audience.name].path
        yield AudienceFileError(f"{other} defines the audience '{audience.name}' too; keep one", path=audience.path)
        return
    # Tools find a list by its label, whatever its case: two audiences with one label would overwrite each other.
    twin = labels.get(audience.label.casefold())
    if twin is not None:
        message = f"label: '{audience.label}' is the label of the audience '{twin}' too; they would share one list"
        yield AudienceFileError(message, path=audience.path, line=audience.line("label"))


def _second_look(audience: Audience, wrong: set[str], settings: Settings) -> Iterator[Problem]:
    sql: SegmentSql | None = None
    if "segment" not in wrong:
        names = segment_names(settings.sql_dir)
        if audience.segment not in names:
            hint = suggest(audience.segment, names)
            yield ("segment",), f"segment: there is no sql/segments/{audience.segment}.sql{hint}"
        else:
            try:
                sql = read_segment(settings.sql_dir, audience.segment)
            except ConfigurationError as error:
                yield ("segment",), f"segment: {error}"
    if sql is not None and "params" not in wrong:
        yield from _param_problems(audience, sql, settings)
    if sql is not None and audience.stages and not sql.has_stages:
        yield ("stages",), f"stages: {audience.segment}.sql has no stages; it would have to call stage_of(<time>)"
    if "destinations" not in wrong:
        yield from _destination_problems(audience, sql, check_channels="channels" not in wrong)


def _param_problems(audience: Audience, sql: SegmentSql, settings: Settings) -> Iterator[Problem]:
    missing = set(sql.params - audience.params.keys())
    for name, value in audience.params.items():
        here = ("params", name)
        if name in setting_names():
            yield here, f"params.{name} is a project setting and cannot be set for one audience"
        elif name not in sql.params:
            hint = did_you_mean(name, sorted(missing or sql.params))
            missing -= {other for other in missing if f"'{other}'" in hint}
            yield here, f"params.{name}: {audience.segment}.sql has no parameter ':{name}'{hint}"
        elif name in sql.durations and not isinstance(value, timedelta):
            yield here, f"params.{name}: {value!r} is no length of time; write it like 30m, 1h or 7d"
        elif name in sql.lists and not isinstance(value, list):
            yield here, f"params.{name}: {audience.segment}.sql wants a list; write it as [{value}]"
        elif isinstance(value, list) and name not in sql.lists:
            yield here, f"params.{name}: {audience.segment}.sql wants one value, not a list"
    for name in sorted(missing):
        yield ("params",), f"params lack '{name}', which {audience.segment}.sql asks for as ':{name}'"
    window = audience.params.get("window")
    if "core.carts" in sql.reads and isinstance(window, timedelta) and window > settings.cart_lifetime:
        yield (
            ("params", "window"),
            f"params.window: {format_duration(window)} is longer than a cart lives (cart_lifetime is "
            f"{format_duration(settings.cart_lifetime)}): the older carts have expired and would never be found",
        )


def _destination_problems(audience: Audience, sql: SegmentSql | None, *, check_channels: bool) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, target in enumerate(audience.destinations):
        here: Location = ("destinations", index)
        if target.to in seen:
            yield here, f"{target.to} stands here twice; an audience has one list per destination"
            continue
        seen.add(target.to)
        destination = _find_destination(target.to)
        if isinstance(destination, str):
            yield (*here, "to"), f"{destination}{suggest(target.to, known_destinations())}"
            continue
        if check_channels and destination.channel not in audience.channels:
            yield (
                here,
                f"{target.to} is on the channel '{destination.channel}', which `channels` does not name; "
                f"add {destination.channel}: {{consent: {destination.channel}}}",
            )
        if target.anonymous and not any(_is_anonymous(kind) for kind in destination.identifiers):
            yield (*here, "anonymous"), f"{destination.label} cannot reach visitors nobody knows by name"
        if target.fields and not destination.has_fields:
            yield (*here, "fields"), f"{destination.label} has no merge fields; leave out `fields`"
        elif sql is not None and sql.columns is not None:
            yield from _missing_columns(index, target, sql.columns)
        yield from _option_problems(here, target, destination)


def _missing_columns(index: int, target: Target, columns: tuple[str, ...]) -> Iterator[Problem]:
    for merge_field, column in target.fields.items():
        if column not in columns:
            yield (
                ("destinations", index, "fields", merge_field),
                f"fields.{merge_field}: the segment has no column '{column}'{suggest(column, columns)}",
            )


def _is_anonymous(kind: str) -> bool:
    return not any(word in kind for word in ("email", "phone", "contact", "user_id", "address"))


def _option_problems(here: Location, target: Target, destination: type[Destination]) -> Iterator[Problem]:
    options = dict(target.options)
    connection = options.pop("connection", None)
    if "connection" in target.options and not (isinstance(connection, str) and connection.strip()):
        yield (*here, "connection"), f"connection: {connection!r} is not the name of an Airflow connection"
    try:
        destination.Settings.model_validate(options)
    except ValidationError as error:
        fields = destination.Settings.model_fields
        for entry in error.errors():
            location = (*here, *entry["loc"])
            key = ".".join(str(part) for part in entry["loc"])
            if entry["type"] == "extra_forbidden":
                hint = suggest(key, [*TARGET_KEYS, *fields])
                yield location, f"{destination.label} has no option '{key}'{hint}"
            elif entry["type"] == "missing":
                purpose = fields[key].description if key in fields else None
                yield location, f"{destination.label} needs '{key}'" + (f": {purpose}" if purpose else "")
            else:
                yield location, f"{key}: {entry['msg']}; found {entry['input']!r}"
