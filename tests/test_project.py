"""The files around the code: what is locked, mounted and documented agrees with what is there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from include.destinations.base import destination_class
from include.sandbox.demo import POOLS

ROOT = Path(__file__).resolve().parents[1]


def _compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_the_image_and_the_lock_name_the_same_airflow() -> None:
    image = re.search(r"apache/airflow:([\d.]+)-", (ROOT / "Dockerfile").read_text())
    locked = re.search(r"^apache-airflow==([\d.]+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert image
    assert locked
    assert image[1] == locked[1]


def test_every_airflow_service_can_import_include_and_read_the_sql() -> None:
    for name, service in _compose()["services"].items():
        if name == "postgres":
            continue
        mounts = {volume.split(":")[1] for volume in service["volumes"]}
        assert {"/opt/airflow/include", "/opt/airflow/sql", "/opt/airflow/dags"} <= mounts, name
        assert service["environment"]["PYTHONPATH"] == "/opt/airflow", name


def test_no_secret_is_written_into_the_compose_file() -> None:
    for service in _compose()["services"].values():
        for name, value in service["environment"].items():
            if re.search(r"PASSWORD$|SECRET|FERNET_KEY", name):
                assert str(value).startswith("${"), name


def test_every_pool_a_task_asks_for_is_created_by_compose() -> None:
    created = set(re.findall(r"airflow pools set (\w+)", (ROOT / "docker-compose.yml").read_text()))
    destinations = {
        path.stem
        for path in (ROOT / "include" / "destinations").glob("*.py")
        if path.stem not in {"__init__", "base", "http"}
    }
    assert created == {"warehouse"} | destinations


def test_no_pool_lets_more_calls_through_than_an_account_takes() -> None:
    compose = re.findall(r"airflow pools set (\w+) (\d+)", (ROOT / "docker-compose.yml").read_text())
    assert {name: int(slots) for name, slots in compose} == POOLS
    for name, slots in POOLS.items():
        if name == "warehouse":
            continue
        destination = destination_class(name)
        assert slots >= destination.connections, f"{name}: a push would never start"
        assert destination.limits.connections is None or slots <= destination.limits.connections, name


def test_every_audience_source_and_destination_is_documented() -> None:
    audiences = (ROOT / "docs" / "audiences.md").read_text()
    for path in (ROOT / "include" / "audiences" / "definitions").glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["label"].lower() in audiences.lower(), path.stem
    destinations = (ROOT / "docs" / "destinations.md").read_text()
    sources = (ROOT / "docs" / "sources.md").read_text()
    for path in (ROOT / "include" / "destinations").glob("*.py"):
        if path.stem not in {"__init__", "base", "http"}:
            assert f"`{path.stem}`" in destinations, path.stem
    for path in (ROOT / "include" / "sources" / "definitions").glob("*.yaml"):
        assert f"`{path.stem}`" in sources, path.stem


def test_every_link_between_the_pages_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_compose_uses_the_server_it_starts_as_the_warehouse() -> None:
    services = _compose()["services"]
    for name, service in services.items():
        if name == "postgres":
            continue
        found = service["environment"]["AIRFLOW_CONN_WAREHOUSE"]
        assert found.startswith("${AIRFLOW_CONN_WAREHOUSE:-postgres://rekindle:"), name
        assert found.endswith("@postgres:5432/warehouse}"), name
    assert "include.warehouse create-database" in services["init"]["command"][1]
    assert services["init"]["environment"]["REKINDLE_WAREHOUSE_ADMIN_URL"].endswith("@postgres/airflow")


def test_the_page_of_engines_names_every_dialect_that_is_tried() -> None:
    from tests.sql.test_dialects import DIALECTS

    page = (ROOT / "docs" / "engines.md").read_text().lower()
    assert [name for name in DIALECTS if name not in page] == []
