"""Connections: where base URLs, ids and secrets come from, with Airflow or without it.

`get_connection("mailchimp_default")` reads the environment variable `AIRFLOW_CONN_MAILCHIMP_DEFAULT` (JSON or
URI, Airflow's own two forms) and asks Airflow's secrets backends and database when there is none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from include.errors import ConfigurationError


@dataclass(frozen=True)
class Connection:
    """One connection. `repr` hides the password and the extras, so that no log shows them."""

    conn_id: str
    conn_type: str = "http"
    host: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    port: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def base_url(self, default: str) -> str:
        """The address to talk to, without a trailing slash; `default` is the vendor's own."""
        if not self.host:
            return default.rstrip("/")
        if "://" in self.host:
            return self.host.rstrip("/")
        port = f":{self.port}" if self.port else ""
        return f"{self.schema or 'https'}://{self.host}{port}".rstrip("/")

    def require(self, name: str, what: str) -> str:
        """The extra `name`, or an error that says which one is missing; `what` says what it is."""
        value = self.extra.get(name)
        if value in (None, ""):
            raise ConfigurationError(
                f"connection {self.conn_id}: its extra has no '{name}' ({what}); add it in Admin > Connections"
            )
        return str(value)

    def secret(self, what: str) -> str:
        """The password, or an error that says what belongs there."""
        if not self.password:
            raise ConfigurationError(
                f"connection {self.conn_id}: the password is empty; put the {what} there in Admin > Connections"
            )
        return self.password


def get_connection(conn_id: str) -> Connection:
    """Find a connection by id; ConfigurationError where there is none."""
    text = os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}")
    if text is not None:
        return parse_connection(conn_id, text)
    from airflow.sdk import Connection as AirflowConnection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = AirflowConnection.get(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"there is no Airflow connection '{conn_id}'; add it in Admin > Connections or set "
            f"AIRFLOW_CONN_{conn_id.upper()}"
        ) from error
    return Connection(
        conn_id=conn_id,
        conn_type=found.conn_type or "",
        host=found.host,
        login=found.login,
        password=found.password,
        schema=found.schema,
        port=found.port,
        extra=found.extra_dejson,
    )


def parse_connection(conn_id: str, text: str) -> Connection:
    """Read Airflow's JSON or URI form of a connection; ConfigurationError when it is neither."""
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"connection {conn_id}: its JSON cannot be read") from error
        extra = data.get("extra") or {}
        return Connection(
            conn_id=conn_id,
            conn_type=data.get("conn_type", "http"),
            host=data.get("host"),
            login=data.get("login"),
            password=data.get("password"),
            schema=data.get("schema"),
            port=int(data["port"]) if data.get("port") else None,
            extra=json.loads(extra) if isinstance(extra, str) else extra,
        )
    parts = urlsplit(text)
    if not parts.scheme:
        raise ConfigurationError(f"connection {conn_id}: neither JSON nor a URI")
    query = dict(parse_qsl(parts.query))
    packed = query.pop("__extra__", None)
    return Connection(
        conn_id=conn_id,
        conn_type=parts.scheme.replace("-", "_"),
        host=unquote(parts.hostname) if parts.hostname else None,
        login=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        schema=unquote(parts.path.lstrip("/")) or None,
        port=parts.port,
        extra=json.loads(packed) if packed else query,
    )
