"""Seeds, restarts, faults and the journal: what makes the sandbox a witness one can rely on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.sandbox.server import Sandbox, SandboxConfig

ROOT = Path(__file__).resolve().parents[3]
LIST = "a1b2c3d4e5"
KEY = {"Authorization": "Bearer 0123456789abcdef0123456789abcdef-us6"}
TOKEN = {"Authorization": "Bearer pat-na1-sandbox"}
CONTACTS = "/hubspot/crm/objects/2026-09/contacts"


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    contact = {
        "id": "1",
        "properties": {"email": "ana@shop.example"},
        "createdAt": "2026-01-01T00:00:00Z",
        "archived": False,
    }
    write(folder, "hubspot/contacts.jsonl", contact)
    write(folder, "hubspot/subscription_definitions.jsonl", {"id": "1", "name": "Newsletter", "isActive": True})
    write(folder, "mailchimp/lists.jsonl", {"id": LIST, "name": "Newsletter"})
    members = [
        {"list_id": LIST, "email_address": f"{name}@shop.example", "status": "subscribed", "merge_fields": {},
         "timestamp_opt": "2026-01-01T00:00:00.000Z", "last_changed": "2026-02-01T00:00:00.000Z"}
        for name in ("ana", "bea")
    ]  # fmt: skip
    write(folder, "mailchimp/members.jsonl", *members)
    (folder / "dataset.json").write_text('{"as_of": "2026-11-24T10:00:00", "seed": 1}')
    return folder


def tag(client: Any, *emails: str) -> httpx.Response:
    body = {"members": [{"email_address": email, "tags": ["Carts"]} for email in emails], "update_existing": True}
    answer: httpx.Response = client.post(f"/mailchimp/3.0/lists/{LIST}", json=body, headers=KEY)
    return answer


def tagged(client: Any) -> list[str]:
    return [email for one in client.get("/_sandbox/lists").json() for email in one["members"]]


def members(client: Any) -> set[str]:
    found = client.get(f"/mailchimp/3.0/lists/{LIST}/members", headers=KEY).json()["members"]
    return {one["email_address"] for one in found}


# seeds


def test_seed_files_fill_the_platforms(make: Callable[..., Any], seed: Path) -> None:
    client = make(seed_dir=seed)
    assert client.get(CONTACTS, headers=TOKEN).json()["results"][0]["properties"]["email"] == "ana@shop.example"
    assert members(client) == {"ana@shop.example", "bea@shop.example"}


def test_the_same_seed_is_not_loaded_twice(make: Callable[..., Any], seed: Path, tmp_path: Path) -> None:
    state = tmp_path / "s.db"
    client = make(state=state, seed_dir=seed)
    action = {"list_id": LIST, "email": "ana@shop.example", "status": "unsubscribed"}
    client.post("/_sandbox/mailchimp", json={"actions": [action]})
    again = make(state=state, seed_dir=seed)
    assert (
        again.get(f"/mailchimp/3.0/lists/{LIST}/members/ana@shop.example", headers=KEY).json()["status"]
        == "unsubscribed"
    )


def test_another_seed_replaces_seed_people_and_keeps_lists_and_members_made_by_clients(
    make: Callable[..., Any], seed: Path, tmp_path: Path
) -> None:
    state = tmp_path / "s.db"
    first = make(state=state, seed_dir=seed)
    body = {"members": [{"email_address": "new@shop.example", "status": "subscribed", "tags": ["Carts"]}]}
    first.post(f"/mailchimp/3.0/lists/{LIST}", json=body, headers=KEY)
    tag(first, "ana@shop.example")
    ana = {"list_id": LIST, "email_address": "ana@shop.example", "status": "cleaned"}
    write(seed, "mailchimp/members.jsonl", ana)
    write(seed, "hubspot/contacts.jsonl")
    (seed / "dataset.json").write_text('{"as_of": "2026-11-25T10:00:00", "seed": 1}')
    second = make(state=state, seed_dir=seed)
    assert members(second) == {"ana@shop.example", "new@shop.example"}
    [carts] = second.get("/_sandbox/lists").json()
    assert carts["statuses"] == {"ana@shop.example": "cleaned", "new@shop.example": "subscribed"}
    assert second.get(CONTACTS, headers=TOKEN).json()["results"] == []


def test_a_broken_seed_line_is_named_and_nothing_of_it_is_kept(seed: Path, tmp_path: Path) -> None:
    (seed / "mailchimp" / "members.jsonl").write_text('{"list_id": \n')
    with pytest.raises(ValueError, match=r"members\.jsonl:1: not JSON"):
        Sandbox(SandboxConfig(state=tmp_path / "s.db", seed_dir=seed))
    empty = Sandbox(SandboxConfig(state=tmp_path / "s.db"))
    assert empty.store.value("select count(*) from hubspot_objects") == 0
    empty.close()


# the journal


def test_the_journal_tells_writes_from_reads_and_keeps_json_bodies(make: Callable[..., Any], seed: Path) -> None:
    client = make(seed_dir=seed)
    form = {"grant_type": "refresh_token", "client_id": "c", "client_secret": "hidden", "refresh_token": "hidden"}
    client.post("/datamanager/token", data=form)
    client.post(f"{CONTACTS}/search", json={}, headers=TOKEN)
    tag(client, "ana@shop.example", "bea@shop.example")
    client.get(f"/mailchimp/3.0/lists/{LIST}/members?count=1", headers=KEY)
    journal = client.get("/_sandbox/journal").json()
    assert [
        (one["platform"], one["method"], one["is_write"], one["rows"], one["status"]) for one in journal["entries"]
    ] == [
        ("datamanager", "POST", False, 0, 200),
        ("hubspot", "POST", False, 1, 200),
        ("mailchimp", "POST", True, 2, 200),
        ("mailchimp", "GET", False, 1, 200),
    ]
    assert journal["entries"][2]["body"]["members"][0]["email_address"] == "ana@shop.example"
    assert journal["entries"][3]["path"] == f"/mailchimp/3.0/lists/{LIST}/members?count=1"
    assert "hidden" not in json.dumps(journal)
    only = client.get(
        "/_sandbox/journal", params={"since": 1, "platform": "mailchimp", "writes": "true", "limit": 0}
    ).json()
    assert (only["last_id"], only["total"], only["entries"]) == (4, 1, [])


def test_refused_requests_are_in_the_journal_and_change_nothing(make: Callable[..., Any], seed: Path) -> None:
    client = make(seed_dir=seed)
    rows = [{"email_address": "ana@shop.example", "tags": ["Carts"]}, {"oops": 1}]
    client.post(f"/mailchimp/3.0/lists/{LIST}", json={"members": rows, "update_existing": True}, headers=KEY)
    client.get(CONTACTS)
    entries = client.get("/_sandbox/journal").json()["entries"]
    assert [(one["status"], one["is_write"]) for one in entries] == [(400, True), (401, False)]
    assert client.get("/_sandbox/lists").json() == []


def test_validating_only_is_no_write(google: Any) -> None:
    body = {"displayName": "A", "ingestedUserListInfo": {"uploadKeyTypes": ["CONTACT_ID"]}}
    lists = "/accountTypes/GOOGLE_ADS/accounts/4445556666/userLists"
    google.post(f"{lists}?validateOnly=true", body)
    google.post("/audienceMembers:ingest", {"validateOnly": True})
    google.post(lists, body)
    entries = google.client.get("/_sandbox/journal?since=1").json()["entries"]
    assert [one["is_write"] for one in entries] == [False, False, True]


def test_large_bodies_are_not_kept(make: Callable[..., Any], seed: Path) -> None:
    client = make(seed_dir=seed, journal_body_bytes=60)
    tag(client, "ana@shop.example")
    [entry] = client.get("/_sandbox/journal").json()["entries"]
    assert (entry["body"], entry["request_bytes"] > 60) == (None, True)


# faults


def fault(client: Any, **spec: Any) -> None:
    assert client.post("/_sandbox/faults", json=spec).status_code == 201


def test_a_status_fault_is_played_as_often_as_told_and_on_its_route_only(make: Callable[..., Any], seed: Path) -> None:
    client = make(seed_dir=seed)
    fault(client, platform="mailchimp", route="^POST /lists/", times=2, kind="status", code=503, body={"a": 1},
          headers={"Retry-After": "7"})  # fmt: skip
    assert client.get("/mailchimp/3.0/ping", headers=KEY).status_code == 200
    for _ in range(2):
        answer = tag(client, "ana@shop.example")
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, {"a": 1}, "7")
    assert tagged(client) == []
    assert tag(client, "ana@shop.example").status_code == 200
    entries = client.get("/_sandbox/journal").json()["entries"]
    assert [one["fault"] for one in entries] == [None, "status", "status", None]


def test_a_status_fault_without_a_body_is_bare(client: Any) -> None:
    fault(client, kind="status", code=403)
    answer = client.get("/mailchimp/3.0/ping", headers=KEY)
    assert (answer.status_code, answer.content) == (403, b"")


def test_faults_are_listed_and_taken_back(client: Any) -> None:
    fault(client, kind="cut_before", times=None)
    assert client.get("/_sandbox/faults").json() == [
        {"id": 1, "remaining": None, "platform": "", "route": "", "kind": "cut_before"}
    ]
    assert client.delete("/_sandbox/faults").status_code == 204
    assert client.get("/mailchimp/3.0/ping", headers=KEY).status_code == 200


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "explode"},
        {"kind": "status"},
        {"kind": "status", "code": 99},
        {"kind": "slow"},
        {"kind": "slow", "seconds": -1},
        {"kind": "cut_before", "times": 0},
        {"kind": "cut_before", "platform": "meta"},
        {"kind": "cut_before", "route": "("},
        {"kind": "cut_before", "until": "noon"},
    ],
)
def test_a_wrong_fault_is_refused(client: Any, spec: dict[str, Any]) -> None:
    assert client.post("/_sandbox/faults", json=spec).status_code == 400
    assert client.get("/_sandbox/faults").json() == []


# a real process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A sandbox in a process of its own."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.options = options
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "include.sandbox", "serve", "--port", str(self.port), *self.options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                self.client.get("/_sandbox/health").raise_for_status()
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise TimeoutError("the sandbox did not come up")

    def stop(self, how: int = signal.SIGTERM) -> None:
        assert self.process is not None
        os.kill(self.process.pid, how)
        self.process.wait(30)


@pytest.fixture
def served(seed: Path, tmp_path: Path) -> Iterator[Served]:
    one = Served("--state", str(tmp_path / "s.db"), "--seed-dir", str(seed))
    yield one
    one.stop()


def test_what_was_answered_survives_a_kill_with_faults_and_journal(served: Served) -> None:
    assert tag(served.client, "ana@shop.example").status_code == 200
    fault(served.client, kind="status", code=500, times=3)
    served.client.get("/mailchimp/3.0/ping", headers=KEY)
    served.stop(signal.SIGKILL)
    served.start()
    assert tagged(served.client) == ["ana@shop.example"]
    assert served.client.get("/_sandbox/faults").json()[0]["remaining"] == 2
    assert served.client.get("/_sandbox/journal").json()["last_id"] == 2


def test_a_connection_is_cut_before_or_after_the_commit(served: Served) -> None:
    for kind, expected in (("cut_before", []), ("cut_after_commit", ["ana@shop.example"])):
        fault(served.client, kind=kind)
        with pytest.raises(httpx.TransportError):
            tag(served.client, "ana@shop.example")
        assert tagged(served.client) == expected
    assert [one["fault"] for one in served.client.get("/_sandbox/journal").json()["entries"]] == [
        "cut_before",
        "cut_after_commit",
    ]


def test_an_answer_is_cut_in_half_after_the_work_is_done(served: Served) -> None:
    fault(served.client, kind="truncated")
    with pytest.raises(httpx.RemoteProtocolError):
        tag(served.client, "ana@shop.example")
    assert tagged(served.client) == ["ana@shop.example"]


def test_a_slow_answer_outlasts_an_impatient_client_and_is_still_carried_out(served: Served) -> None:
    fault(served.client, kind="slow", seconds=1.0)
    with pytest.raises(httpx.ReadTimeout):
        served.client.get("/mailchimp/3.0/ping", headers=KEY, timeout=0.3)
    fault(served.client, kind="slow", seconds=0.4)
    started = time.monotonic()
    assert served.client.get("/mailchimp/3.0/ping", headers=KEY).status_code == 200
    assert time.monotonic() - started >= 0.4


def test_ten_slow_connections_leave_no_room_for_an_eleventh(served: Served) -> None:
    fault(served.client, platform="mailchimp", route="/ping", kind="slow", seconds=3.0, times=10)
    waiting = []
    for _ in range(10):
        one = socket.create_connection(("127.0.0.1", served.port))
        one.sendall(
            f"GET /mailchimp/3.0/ping HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY['Authorization']}\r\n\r\n".encode()
        )
        waiting.append(one)
    end = time.monotonic() + 2.5
    while served.client.get("/_sandbox/faults").json() and time.monotonic() < end:
        time.sleep(0.02)
    answer = served.client.get("/mailchimp/3.0/lists", headers=KEY)
    assert (answer.status_code, answer.json()["title"]) == (429, "Too Many Requests")
    for one in waiting:
        assert one.recv(20).startswith(b"HTTP/1.1 200")
        one.close()


def test_a_taken_port_is_one_clear_line_and_code_two(served: Served, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "include.sandbox",
        "serve",
        "--port",
        str(served.port),
        "--state",
        str(tmp_path / "x.db"),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines() == [
        f"cannot listen on 127.0.0.1:{served.port} (Address already in use); choose another --port"
    ]
    assert not (tmp_path / "x.db").exists()


def test_reset_begins_with_an_empty_state_and_as_of_sets_the_clock(tmp_path: Path) -> None:
    state = str(tmp_path / "s.db")
    one = Served("--state", state)
    one.client.post("/_sandbox/mailchimp", json={"lists": [{"id": LIST, "name": "Newsletter"}]})
    one.stop()
    one = Served("--state", state, "--reset", "--as-of", "2026-03-10T12:00")
    try:
        answer = one.client.get("/mailchimp/3.0/lists", headers=KEY)
        assert answer.json()["lists"] == []
        assert answer.headers.get_list("date")[0].startswith("Tue, 10 Mar 2026 12:0")
        assert len(answer.headers.get_list("date")) == 1
        assert one.client.get("/_sandbox/journal").json()["entries"][0]["at"].startswith("2026-03-10T12:0")
    finally:
        one.stop()


def test_a_client_that_leaves_in_the_middle_of_its_request_changes_nothing(served: Served) -> None:
    path = f"/mailchimp/3.0/lists/{LIST}/members/ana@shop.example"
    with socket.create_connection(("127.0.0.1", served.port)) as one:
        lines = [
            f"DELETE {path} HTTP/1.1",
            "Host: x",
            f"Authorization: {KEY['Authorization']}",
            "Content-Length: 9",
            "",
        ]
        one.sendall("\r\n".join([*lines, "half"]).encode())
    time.sleep(0.2)
    assert served.client.get(path, headers=KEY).json()["status"] == "subscribed"
    assert [one["method"] for one in served.client.get("/_sandbox/journal").json()["entries"]] == ["GET"]
