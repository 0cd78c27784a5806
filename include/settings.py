"""Project-wide settings, read from `REKINDLE_*` environment variables; secrets are in Airflow connections only."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Defaults of the rules that are not a matter of one audience."""

    model_config = SettingsConfigDict(env_prefix="REKINDLE_", extra="ignore")

    sql_dir: Path = Field(ROOT / "sql", description="where staging/, core/, segments/ and reports/ are")
    sources_dir: Path = Field(ROOT / "include" / "sources" / "definitions", description="one YAML file per source")
    audiences_dir: Path = Field(
        ROOT / "include" / "audiences" / "definitions", description="one YAML file per audience"
    )
    state_dir: Path = Field(ROOT / "build" / "state", description="working files of the loaders")
    cache_dir: Path = Field(ROOT / "build" / "cache", description="finished SQL; may be deleted at any time")

    as_of: datetime | None = Field(
        None, description="freeze the clock of all rules (UTC); unset means each run's own time"
    )
    holdout_salt: str = Field("rekindle", description="changing it draws new holdouts for every audience")

    erasure_salt: str = Field(
        "rekindle",
        description="goes into the hashes that keep erased people out; choose your own before the first erasure",
    )
    audit_every: timedelta = Field(
        timedelta(days=1), description="how often a list is read back and compared with the ledger, at most"
    )
    build_at_latest: str | None = Field(
        "45 * * * *",
        description="cron (UTC) at which audiences are built even if a source has not landed; empty: never",
    )
    approval_timeout: timedelta = Field(
        timedelta(hours=24), description="a question about a stopped plan that nobody answered ends after this"
    )
    company_domains: tuple[str, ...] = Field(
        (), description="e-mail domains of our own people: staff, out of every audience"
    )
    keep_details: timedelta = Field(
        timedelta(days=400),
        ge=timedelta(days=90),
        description="for how long every answer of a destination and every row of a plan is kept, overtaken or not",
    )
    cart_lifetime: timedelta = Field(timedelta(days=7), description="a cart untouched for longer has expired")
    clock_tolerance: timedelta = Field(
        timedelta(seconds=60), description="an order this much before the last touch still closes the cart"
    )
    quarantine_above: int = Field(
        10, description="an e-mail, phone or browser that would join more profiles is quarantined"
    )
    bot_page_views_per_minute: int = Field(100, description="this many page views in a minute is a bot")
    build_memory_mb: int = Field(
        6000, ge=64, description="what a build may hold in memory on DuckDB (MB); what is above it goes to disk"
    )
    plan_memory_mb: int = Field(
        192, ge=64, description="what a plan may hold in memory on DuckDB (MB); what is above it goes to disk"
    )
    session_gap: timedelta = Field(
        timedelta(minutes=30), description="a visit ends after this silence, where the source has no session id"
    )


@lru_cache
def get_settings() -> Settings:
    """The settings of this process."""
    return Settings()
