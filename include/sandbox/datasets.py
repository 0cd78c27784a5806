"""What a demo runs on: the invented shop, or real data that others published."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from include.errors import ConfigurationError
from include.settings import ROOT

PUBLISHED = ROOT / "include" / "sandbox" / "published"
MAILCHIMP_KEY = f"{'0' * 32}-us6"


@dataclass
class Dataset:
    """What the demo runs on: where its files are and which moment its rules work for (UTC)."""

    name: str
    folder: Path
    as_of: datetime
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def shop_dataset(home: Path, people: int) -> Dataset:
    """The invented shop; drawn once per size and kept, so that a second demo finds nothing new."""
    folder = home / f"shop-{people}"
    about = folder / "data" / "dataset.json"
    if not about.exists():
        from include.sandbox.shop import generate

        generate(folder / "data", people)
    drawn = json.loads(about.read_text())
    return Dataset(
        name=folder.name,
        folder=folder,
        as_of=datetime.fromisoformat(drawn["as_of"]),
        connections={
            "ga4_export_default": {"conn_type": "generic", "extra": {"path": str(folder / "data" / "ga4")}},
            "files_default": {"conn_type": "generic", "extra": {"path": str(folder / "data" / "files")}},
        },
        environment={"REKINDLE_COMPANY_DOMAINS": json.dumps([drawn["staff_domain"]])},
    )


def published_dataset(home: Path, data: Path) -> Dataset:
    """Real data others published: a GA4 export sample and the UCI online retail orders under `data`."""
    import duckdb

    data = data.resolve()
    sample = data / "ga4-merch-store-sample" / "ga4_events_sampled.snappy.parquet"
    if not sample.exists():
        raise ConfigurationError(f"DATA={data}: there is no {sample.relative_to(data)} below it")
    newest = duckdb.execute("select max(event_timestamp) from read_parquet(?)", [str(sample)]).fetchone()
    if newest is None or newest[0] is None:
        raise ConfigurationError(f"{sample}: it holds no events")
    end = datetime(1970, 1, 1) + timedelta(microseconds=newest[0])
    _seed_newsletter(home / "published" / "data")
    return Dataset(
        name="published",
        folder=home / "published",
        as_of=end.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1),
        connections={
            "ga4_export_default": {"conn_type": "generic", "extra": {"path": str(data / "ga4-merch-store-sample")}},
            "files_default": {"conn_type": "generic", "extra": {"path": str(data / "uci-online-retail")}},
        },
        environment={"REKINDLE_SOURCES_DIR": str(PUBLISHED)},
    )


def _seed_newsletter(seeds: Path) -> None:
    """Give the sandbox's Mailchimp an empty list of the name that the shipped audiences use."""
    (seeds / "mailchimp").mkdir(parents=True, exist_ok=True)
    (seeds / "mailchimp" / "lists.jsonl").write_text(json.dumps({"id": "a1b2c3d4e5", "name": "Newsletter"}) + "\n")
    (seeds / "dataset.json").write_text(json.dumps({"counts": {"mailchimp lists": 1}}) + "\n")


def connections(dataset: Dataset, sandbox: str) -> dict[str, dict[str, Any]]:
    """The Airflow connections of a demo by id, the platforms' base URLs pointing at the sandbox."""
    return {
        "warehouse": {"conn_type": "generic", "extra": {"url": warehouse_url(dataset.folder)}},
        "hubspot_default": {
            "conn_type": "http",
            "host": f"{sandbox}/hubspot",
            "password": "pat-na1-sandbox",
            "extra": {"requests_per_10s": 190},
        },
        "mailchimp_default": {"conn_type": "http", "host": f"{sandbox}/mailchimp", "password": MAILCHIMP_KEY},
        "google_ads_default": {
            "conn_type": "http",
            "host": f"{sandbox}/datamanager",
            "extra": {
                "customer_id": "4445556666",
                "login_customer_id": "4445556666",
                "refresh_token": "sandbox",
                "client_id": "sandbox",
                "client_secret": "sandbox",
                "token_uri": f"{sandbox}/datamanager/token",
            },
        },
        **dataset.connections,
    }


def warehouse_url(folder: Path) -> str:
    """The SQLAlchemy URL of a dataset's warehouse."""
    return f"duckdb:///{folder / 'warehouse.duckdb'}"
