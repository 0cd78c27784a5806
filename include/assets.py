"""Every asset, declared once: what the DAGs wait for and what they announce.

rekindle://sources/<source>      a source has landed new rows in `raw`
warehouse://<schema>/<table>     a table has been rebuilt
rekindle://audiences/<audience>  an audience has passed its quality gate and may be synced
"""

from __future__ import annotations

from airflow.sdk import Asset


def source_asset(source: str) -> Asset:
    """A source has landed."""
    return Asset(name=f"source.{source}", uri=f"rekindle://sources/{source}", group="source")


def table_asset(table: str) -> Asset:
    """A table, named `schema.table`, has been published."""
    schema, name = table.split(".")
    return Asset(name=table, uri=f"warehouse://{schema}/{name}", group="table")


def audience_asset(audience: str) -> Asset:
    """An audience is ready to be synced."""
    return Asset(name=f"audience.{audience}", uri=f"rekindle://audiences/{audience}", group="audience")
