"""Sources: one file per system we read. A source yields typed rows for `raw`; dlt lands them, see docs/sources.md."""

from include.sources.definition import SourceDefinition, get_source_definition, load_sources, read_sources
from include.sources.load import ingest

__all__ = ["SourceDefinition", "get_source_definition", "ingest", "load_sources", "read_sources"]
