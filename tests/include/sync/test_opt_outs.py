"""Opt-outs: only changes are written, a return counts only for those we hold, and each list remembers its own read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from include.destinations.base import Destination, OptOut
from include.destinations.http import utc_now
from include.errors import TransientError
from include.settings import get_settings
from include.sync import opt_outs
from include.sync.opt_outs import CLOCKS_DIFFER, read_before_push, read_opt_outs
from include.warehouse.engine import Warehouse
from tests.include.sync.test_push import AUDIENCE, Paper


class Tool(Paper):
    """Tells what the test says, and notes since when it was asked."""

    def __init__(self, *answers: OptOut, scope: str = "Newsletter") -> None:
        super().__init__()
        self.answers = answers
        self.scope = scope
        self.asked: list[datetime | None] = []
        self.said_no: Collection[str] | None = None

    def connect(self, name: str, options: Mapping[str, object]) -> Tool:
        return self

    def opt_out_scope(self) -> str:
        return self.scope

    def read_opt_outs(self, since: datetime | None, said_no: Collection[str] | None = None) -> Iterator[OptOut]:
        self.asked.append(since)
        self.said_no = said_no
        yield from self.answers


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_warehouse: Warehouse) -> Iterator[Warehouse]:
    (tmp_path / "carts.yaml").write_text(AUDIENCE)
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path))
    get_settings.cache_clear()
    yield empty_warehouse
    get_settings.cache_clear()


def said(person: str, reason: str = "opted_out", is_active: bool = True) -> OptOut:
    return OptOut("email", f"{person}@shop.example", "email", reason, is_active, datetime(2026, 3, 1))


def held(warehouse: Warehouse) -> list[tuple[str, str, bool]]:
    rows = warehouse.read(
        "select value, reason, is_active from sync.opt_outs where kind = 'email' order by read_at, value"
    )
    return [(row["value"].split("@")[0], row["reason"], row["is_active"]) for row in rows]


def read(warehouse: Warehouse, tool: Destination) -> int:
    return read_opt_outs(warehouse, "carts", "mailchimp", tool.connect)  # type: ignore[attr-defined]


def test_before_a_push_every_list_of_the_channel_is_read_that_was_not_just_read(
    warehouse: Warehouse, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = {"others": "mailchimp, audience: Shop", "down": "mailchimp, audience: Down", "ads": "google_ads"}
    for name, target in targets.items():
        text = (
            AUDIENCE.split("destinations:")[0].replace("Cart abandoners", name)
            + f"destinations:\n  - {{to: {target}}}\n"
        )
        (tmp_path / f"{name}.yaml").write_text(text)
    get_settings.cache_clear()
    tools = {name: Tool(said(name.lower()), scope=name) for name in ("Newsletter", "Shop", "Down")}

    def down(since: datetime | None, held: Collection[str] | None) -> Iterator[OptOut]:
        raise TransientError("Mailchimp gave no answer")

    tools["Down"].read_opt_outs = down  # type: ignore[method-assign]

    def connect(name: str, options: Mapping[str, object]) -> Destination:
        assert name == "mailchimp"
        return tools[str(options["audience"])]

    assert read_before_push(warehouse, "carts", "mailchimp", connect) == 2
    assert "could not be asked who said no there: Mailchimp gave no answer" in caplog.text
    read_before_push(warehouse, "carts", "mailchimp", connect)
    assert (len(tools["Newsletter"].asked), len(tools["Shop"].asked)) == (2, 1)
    monkeypatch.setattr(opt_outs, "utc_now", lambda: utc_now() + timedelta(minutes=11))
    read_before_push(warehouse, "carts", "mailchimp", connect)
    assert (len(tools["Newsletter"].asked), len(tools["Shop"].asked)) == (3, 2)


def test_the_same_answer_is_written_once(warehouse: Warehouse) -> None:
    assert read(warehouse, Tool(said("ana"), said("bo", "bounced"))) == 2
    assert read(warehouse, Tool(said("ana"), said("bo", "bounced"))) == 0
    assert held(warehouse) == [("ana", "opted_out", True), ("bo", "bounced", True)]


@pytest.mark.on_spark
def test_a_return_counts_only_for_who_had_left(warehouse: Warehouse) -> None:
    read(warehouse, Tool(said("ana")))
    assert read(warehouse, Tool(said("ana", is_active=False), said("cy", is_active=False))) == 1
    assert held(warehouse) == [("ana", "opted_out", True), ("ana", "opted_out", False)]
    assert read(warehouse, Tool(said("ana"))) == 1


def test_each_list_speaks_for_itself(warehouse: Warehouse) -> None:
    read(warehouse, Tool(said("ana")))
    assert (
        read(warehouse, Tool(said("ana", is_active=False), scope="VIP")) == 0
    )  # she is on that one, and left the other
    assert read(warehouse, Tool(said("ana"), scope="VIP")) == 1
    assert read(warehouse, Tool(said("ana", is_active=False))) == 1
    rows = warehouse.read("select list_name, is_active from sync.opt_outs where kind = 'email' order by read_at")
    assert [(row["list_name"], row["is_active"]) for row in rows] == [
        ("Newsletter", True), ("VIP", True), ("Newsletter", False),
    ]  # fmt: skip


def test_an_opt_out_from_before_lists_were_noted_ends_with_a_return(warehouse: Warehouse) -> None:
    read(warehouse, Tool(said("ana"), scope=""))
    assert read(warehouse, Tool(said("ana", is_active=False))) == 1
    assert held(warehouse) == [("ana", "opted_out", True), ("ana", "opted_out", False)]
    assert warehouse.scalar("select count(*) as n from sync.opt_outs where list_name is null and kind = 'email'") == 2


def test_each_list_is_read_from_where_its_own_last_read_began(warehouse: Warehouse) -> None:
    first, again, other = Tool(), Tool(), Tool(scope="VIP")
    read(warehouse, first)
    read(warehouse, again)
    read(warehouse, other)
    began = warehouse.scalar("select min(occurred_at) as m from sync.opt_outs where value = 'Newsletter'")
    assert first.asked == [None]
    assert again.asked == [began - CLOCKS_DIFFER]
    assert other.asked == [None]


def test_a_tool_is_told_who_may_come_back(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third, other = Tool(said("ana"), said("bo")), Tool(said("bo", is_active=False)), Tool(), Tool()
    for tool in (first, second, third):
        read(warehouse, tool)
    assert (first.said_no, second.said_no, third.said_no) == (
        None, ["ana@shop.example", "bo@shop.example"], ["ana@shop.example"],
    )  # fmt: skip
    monkeypatch.setattr(opt_outs, "MANY", 0)
    read(warehouse, other)
    assert other.said_no is None


def test_where_only_a_hash_is_kept_all_who_changed_are_asked_for(warehouse: Warehouse) -> None:
    read(warehouse, Tool(said("ana")))
    warehouse.execute("update sync.opt_outs set kind = 'hashed', value = 'abc' where kind = 'email'")
    tool = Tool()
    read(warehouse, tool)
    assert tool.said_no is None


def test_a_read_that_broke_off_is_begun_again(warehouse: Warehouse) -> None:
    class Broken(Tool):
        def read_opt_outs(self, since: datetime | None, said_no: Collection[str] | None = None) -> Iterator[OptOut]:
            yield said("ana")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        read(warehouse, Broken())
    tool = Tool(said("ana"))
    assert read(warehouse, tool) == 1
    assert tool.asked == [None]


def test_a_tool_that_tells_nothing_is_no_error(warehouse: Warehouse) -> None:
    assert read(warehouse, Paper()) == 0
    assert held(warehouse) == []
