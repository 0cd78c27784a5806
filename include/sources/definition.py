"""Source definitions: one YAML file says which system is read, over which connection, how often and with what settings.

The file name is the name of the source, which every row in `raw` carries. A wrong file is an error with file, line and
what was meant; the other sources go on without it.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from include.errors import AudienceFileError, ConfigurationError, RekindleError
from include.settings import get_settings

log = logging.getLogger(__name__)


class SourceDefinition(BaseModel):
    """One definition file. `settings` was checked against the settings model of its kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="the file name; column `source` of every row")
    path: str = Field(description="the file this came from")
    label: str = Field(min_length=1, description="the name people see")
    kind: str = Field(description="the module in include/sources that reads it")
    connection: str = Field(description="Airflow connection with address and secrets")
    schedule: str | None = Field(None, description="cron expression in UTC, or null to run by hand")
    settings: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("schedule")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("@") and len(value.split()) != 5:
            raise ValueError('a cron expression has five fields, like "0 * * * *"')
        return value


@dataclass(frozen=True)
class LoadedSources:
    """The good definitions by name, and an error for each that is not."""

    sources: dict[str, SourceDefinition]
    errors: list[AudienceFileError]


Path_ = tuple[str | int, ...]


class _Lines:
    """Where each key of a YAML file stands."""

    def __init__(self, node: yaml.Node | None) -> None:
        self.at: dict[Path_, int] = {}
        self.duplicate: tuple[str, int] | None = None
        if node is not None:
            self._walk(node, ())

    def _walk(self, node: yaml.Node, path: Path_) -> None:
        self.at.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                word = str(key.value)
                if word in seen and self.duplicate is None:
                    self.duplicate = (word, key.start_mark.line + 1)
                seen.add(word)
                self.at[(*path, word)] = key.start_mark.line + 1
                self._walk(value, (*path, word))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._walk(value, (*path, index))

    def line(self, path: Sequence[str | int]) -> int:
        """The line of the longest part of `path` that the file has; pydantic's own steps are left out."""
        found: Path_ = ()
        for step in path:
            if (*found, step) in self.at:
                found = (*found, step)
        return self.at.get(found, 1)


def read_sources(folder: Path | None = None) -> LoadedSources:
    """Read every definition of the folder (default: the setting `sources_dir`)."""
    folder = folder or get_settings().sources_dir
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder} with source definitions (REKINDLE_SOURCES_DIR)")
    sources: dict[str, SourceDefinition] = {}
    errors: list[AudienceFileError] = []
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            definition = read_definition(path)
            if definition.name in sources:
                raise AudienceFileError(f"there are two files for the source '{definition.name}'", path=str(path))
            sources[definition.name] = definition
        except AudienceFileError as error:
            errors.append(error)
    return LoadedSources(sources, errors)


def load_sources(folder: Path | None = None) -> dict[str, SourceDefinition]:
    """The definitions that are right, by name; each wrong one is logged as an error and left out."""
    loaded = read_sources(folder)
    for error in loaded.errors:
        log.error("source definition skipped: %s", error)
    return loaded.sources


def get_source_definition(name: str, folder: Path | None = None) -> SourceDefinition:
    """One definition; raises the error of its own file, or says which names there are."""
    loaded = read_sources(folder)
    if name in loaded.sources:
        return loaded.sources[name]
    for error in loaded.errors:
        if Path(error.path).stem == name:
            raise error
    raise ConfigurationError(f"there is no source '{name}'{_did_you_mean(name, sorted(loaded.sources))}")


def read_definition(path: Path) -> SourceDefinition:
    """Read one file; AudienceFileError with file and line when it is wrong."""
    from include.sources.base import source_class

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise AudienceFileError("cannot be read as UTF-8 text", path=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        raise AudienceFileError(str(problem), path=str(path), line=mark.line + 1 if mark else None) from error
    lines = _Lines(node)
    if not isinstance(data, dict):
        raise AudienceFileError("a source definition is a mapping: label, kind, connection, ...", path=str(path))
    if lines.duplicate:
        word, line = lines.duplicate
        raise AudienceFileError(f"'{word}' is there twice", path=str(path), line=line)
    given = {key: value for key, value in data.items() if key not in ("name", "path")}
    try:
        for key in ("name", "path"):
            if key in data:
                raise AudienceFileError(f"'{key}' comes from the file name", path=str(path), line=lines.line([key]))
        definition = SourceDefinition(name=path.stem, path=str(path), **given)
    except ValidationError as error:
        raise _explain(error, path, lines, SourceDefinition, ()) from error
    except TypeError as error:
        raise AudienceFileError("every key must be a word", path=str(path)) from error
    try:
        cls = source_class(definition.kind)
    except RekindleError as error:
        raise AudienceFileError(str(error), path=str(path), line=lines.line(["kind"])) from error
    try:
        cls.Settings.model_validate(definition.settings)
    except ValidationError as error:
        raise _explain(error, path, lines, cls.Settings, ("settings",)) from error
    return definition


def _explain(
    error: ValidationError, path: Path, lines: _Lines, model: type[BaseModel], prefix: Path_
) -> AudienceFileError:
    """The first thing pydantic found, as a sentence with the line it is about."""
    first = error.errors()[0]
    place = (*prefix, *first["loc"])
    named = ".".join(str(step) for step in place if not str(step).startswith("function-"))
    if first["type"] == "extra_forbidden":
        known = sorted(_known_keys(model, first["loc"][:-1]) - {"name", "path"})
        message = f"'{named}' is not known{_did_you_mean(str(place[-1]), known)}"
    elif first["type"] == "missing":
        message = f"'{named}' is missing"
    else:
        message = f"'{named}': {first['msg'].removeprefix('Value error, ')}" if named else first["msg"]
    quoted = re.search(r"'([^']+)' is not a column", message)  # a validator speaks of one key below `place`
    line = lines.line((*place, quoted[1]) if quoted else place)
    return AudienceFileError(message, path=str(path), line=line)


def _known_keys(model: type[BaseModel], steps: Sequence[str | int]) -> set[str]:
    """The field names of the model that stands at `steps` below `model`."""
    from typing import get_args

    current: type[BaseModel] = model
    for step in steps:
        field = current.model_fields.get(str(step))
        if field is None:
            continue
        pending: list[Any] = [field.annotation]
        while pending:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                current = annotation
                break
            pending.extend(get_args(annotation))
    return set(current.model_fields)


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint: the nearest known word, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are: {', '.join(known)}" if known else ""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint for an error text: the nearest known word, or all of them."""
    return _did_you_mean(word, known)
