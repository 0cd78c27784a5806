"""Mailchimp: exact requests out, the vendor's answers in, over real HTTP to a local stand-in."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from include.connections import Connection
from include.destinations import mailchimp
from include.destinations.base import Destination, OptOut, RowResult, get_destination
from include.destinations.mailchimp import Mailchimp, MailchimpSettings
from include.errors import AudienceRejected, AuthenticationError, ConfigurationError, TransientError
from tests.include.destinations.fake_mailchimp import KEY, LABEL, LIST, Platform, person, problem
from tests.include.destinations.local_server import Reply, Request

pytestmark = pytest.mark.usefixtures("waits")


@pytest.fixture
def platform() -> Iterator[Platform]:
    server = Platform()
    yield server
    server.close()


def connect(platform: Platform, **options: str) -> Mailchimp:
    return Mailchimp(platform.connection(), MailchimpSettings(audience="Newsletter", **options))


def tag(platform: Platform, destination: Destination) -> str:
    list_id = destination.ensure_audience(LABEL, "", ["CART_URL"])
    platform.journal.clear()
    return list_id


def test_the_list_is_found_and_the_tag_and_missing_merge_fields_are_made_once(platform: Platform) -> None:
    destination = connect(platform)
    first = destination.ensure_audience(LABEL, "", ["FNAME", "CART_URL"])
    again = destination.ensure_audience(LABEL, "", ["FNAME", "CART_URL"])
    assert first == again == f"{LIST}/49377"
    created = [call.body for call in platform.journal if call.method == "POST"]
    assert created == [
        {"tag": "CART_URL", "name": "CART_URL", "type": "text", "public": False},
        {"name": LABEL, "static_segment": []},
    ]
    assert platform.journal[0].headers["authorization"].startswith("Basic ")


def test_a_list_beyond_the_first_page_is_found(platform: Platform) -> None:
    platform.lists = {f"id{i}": f"List {i}" for i in range(1000)} | {LIST: "Newsletter"}
    assert connect(platform).ensure_audience(LABEL, "", []).startswith(f"{LIST}/")


def test_an_unknown_list_is_named_with_the_number_of_those_there_are(platform: Platform) -> None:
    destination = Mailchimp(platform.connection(), MailchimpSettings(audience="Newsleter"))
    with pytest.raises(ConfigurationError, match="no list 'Newsleter' among the 1 lists"):
        destination.ensure_audience(LABEL, "", [])


@pytest.mark.parametrize("field", ["CART_CONTENTS", "cart_url", "CÄRT"])
def test_a_merge_field_that_mailchimp_cannot_have_is_an_error_before_any_write(platform: Platform, field: str) -> None:
    with pytest.raises(ConfigurationError, match="at most 10 capital letters"):
        connect(platform).ensure_audience(LABEL, "", [field])
    assert all(call.method == "GET" for call in platform.journal)


def test_one_call_adds_people_with_fields_and_tag_and_never_a_status(platform: Platform) -> None:
    platform.put("ana@shop.example", "subscribed")
    destination = connect(platform)
    list_id = tag(platform, destination)
    results = destination.add(
        list_id, [person("ana@shop.example", CART_URL=None), person("bo@shop.example", CART_URL="u")]
    )
    assert results == [RowResult("accepted"), RowResult("accepted")]
    (call,) = platform.journal
    assert call.path == f"/mailchimp/3.0/lists/{LIST}"
    assert call.query == {"skip_merge_validation": "true", "skip_duplicate_check": "true"}
    assert call.body == {
        "members": [
            {"email_address": "ana@shop.example", "merge_fields": {"CART_URL": ""}, "tags": [LABEL],
             "status_if_new": "transactional"},
            {"email_address": "bo@shop.example", "merge_fields": {"CART_URL": "u"}, "tags": [LABEL],
             "status_if_new": "transactional"},
        ],
        "update_existing": True,
        "sync_tags": False,
    }  # fmt: skip
    assert platform.opt_in_state() == {"ana@shop.example": "subscribed", "bo@shop.example": "transactional"}


def test_a_long_text_is_cut_to_what_a_merge_field_holds_and_a_link_is_not(platform: Platform) -> None:
    destination = connect(platform)
    link = "https://shop.example/" + "x" * 300
    destination.add(tag(platform, destination), [person("ana@shop.example", ITEMS="é" * 256, FULL="y" * 255, URL=link)])
    fields = platform.journal[0].body["members"][0]["merge_fields"]
    assert fields == {"ITEMS": "é" * 254 + "…", "FULL": "y" * 255, "URL": link}


@pytest.mark.parametrize("status", ["unsubscribed", "cleaned", "archived", "pending"])
def test_who_may_not_be_mailed_is_rejected_and_taken_off_the_tag_again(platform: Platform, status: str) -> None:
    platform.put("ana@shop.example", status, tags=["VIP"])
    destination = connect(platform)
    results = destination.add(tag(platform, destination), [person("ana@shop.example"), person("bo@shop.example")])
    assert results == [RowResult("rejected", f"{status} at Mailchimp"), RowResult("accepted")]
    assert platform.on_list() == {"bo@shop.example"}
    assert platform.members["ana@shop.example"]["tags"] == ["VIP"]
    assert platform.members["ana@shop.example"]["status"] == status


def test_rows_with_errors_inside_a_200_are_rejected_with_the_reason(platform: Platform) -> None:
    platform.forgotten.add("gone@shop.example")
    destination = connect(platform)
    batch = [person("Bo@shop.example"), person("broken@"), person("gone@shop.example")]
    results = destination.add(tag(platform, destination), batch)
    assert [result.status for result in results] == ["accepted", "rejected", "rejected"]
    assert results[1].reason == "ERROR_GENERIC: Please provide a valid email address."
    assert results[2].reason.startswith("Forgotten Email Not Subscribed")
    assert not any("shop.example" in result.reason for result in results)


def test_compliance_state_is_rejected_taken_off_the_tag_and_not_asked_again_as_pending(platform: Platform) -> None:
    platform.put("ana@shop.example", "unsubscribed", tags=[LABEL])
    destination = connect(platform)
    list_id = tag(platform, destination)
    text = "ana@shop.example is in a compliance state due to unsubscribe and cannot be subscribed."
    error = {"email_address": "ana@shop.example", "error": text, "error_code": "ERROR_GENERIC"}
    platform.faults.append(Reply(200, {"new_members": [], "updated_members": [], "errors": [error]}))
    (result,) = destination.add(list_id, [person("ana@shop.example")])
    assert result.status == "rejected"
    assert result.reason.startswith("Member In Compliance State")
    assert platform.on_list() == set()
    assert [call.body for call in platform.journal[1:]] == [{"members_to_remove": ["ana@shop.example"]}]


def test_nothing_where_a_list_could_be_is_an_empty_list(platform: Platform) -> None:
    destination = connect(platform)
    list_id = tag(platform, destination)
    member = {"email_address": "ana@shop.example", "status": "subscribed", "tags": None}
    platform.faults.append(Reply(200, {"new_members": None, "updated_members": [member], "errors": None}))
    platform.faults.append(Reply(200, {"errors": None}))
    assert destination.add(list_id, [person("ana@shop.example")]) == [RowResult("accepted")]
    assert [sorted(call.body) for call in platform.journal] == [
        ["members", "sync_tags", "update_existing"],
        ["members_to_add"],
    ]


def test_an_address_without_any_answer_is_rejected(platform: Platform) -> None:
    destination = connect(platform)
    list_id = tag(platform, destination)
    platform.faults.append(Reply(200, {"new_members": [], "updated_members": [], "errors": []}))
    assert destination.add(list_id, [person("ana@shop.example")]) == [RowResult("rejected", "no answer")]


def test_new_people_go_one_by_one_where_the_batch_call_wants_a_status(platform: Platform) -> None:
    platform.knows_status_if_new = False
    platform.forgotten.add("gone@shop.example")
    platform.put("old@shop.example", "subscribed")
    destination = connect(platform)
    batch = [person("old@shop.example"), person("New@shop.example", CART_URL="u")]
    assert destination.add(tag(platform, destination), batch) == [RowResult("accepted")] * 2
    _, put, tagging = platform.journal
    assert (put.method, put.path.rsplit("/", 1)[0]) == ("PUT", f"/mailchimp/3.0/lists/{LIST}/members")
    assert put.body == {
        "email_address": "New@shop.example", "status_if_new": "transactional", "merge_fields": {"CART_URL": "u"},
    }  # fmt: skip
    assert tagging.body == {"members_to_add": ["new@shop.example"]}


def test_new_people_are_left_out_when_the_audience_says_so(platform: Platform) -> None:
    platform.put("old@shop.example", "subscribed")
    destination = connect(platform, new_contacts="skip")
    results = destination.add(tag(platform, destination), [person("old@shop.example"), person("new@shop.example")])
    assert results == [RowResult("accepted"), RowResult("rejected", "not on the Mailchimp list")]
    assert "new@shop.example" not in platform.members
    assert not any("status" in call.text for call in platform.journal)


def test_members_who_come_back_without_the_tag_are_tagged_in_one_call(platform: Platform) -> None:
    platform.tags_in_batch = False
    destination = connect(platform)
    results = destination.add(tag(platform, destination), [person("a@shop.example"), person("b@shop.example")])
    assert results == [RowResult("accepted")] * 2
    assert len(platform.journal) == 2
    assert platform.journal[1].body == {"members_to_add": ["a@shop.example", "b@shop.example"]}


def test_another_process_finds_the_name_of_the_tag_by_its_id(platform: Platform) -> None:
    list_id = connect(platform).ensure_audience(LABEL, "", [])
    connect(platform).add(list_id, [person("ana@shop.example")])
    assert platform.on_list() == {"ana@shop.example"}


def test_leavers_lose_the_tag_and_nothing_else(platform: Platform) -> None:
    platform.put("ana@shop.example", "subscribed", tags=[LABEL, "VIP"])
    destination = connect(platform)
    list_id = tag(platform, destination)
    results = destination.remove(list_id, [person("ana@shop.example"), person("never@shop.example")])
    assert results == [RowResult("accepted")] * 2
    (call,) = platform.journal
    assert call.body == {"members_to_remove": ["ana@shop.example", "never@shop.example"]}
    assert platform.members["ana@shop.example"]["tags"] == ["VIP"]
    assert platform.members["ana@shop.example"]["status"] == "subscribed"


def test_who_is_not_on_the_tag_any_more_has_left(platform: Platform) -> None:
    platform.tells_who_is_not_there = True
    platform.put("untagged@shop.example", "subscribed", tags=["VIP"])
    destination = connect(platform)
    results = destination.remove(
        tag(platform, destination), [person("untagged@shop.example"), person("x@shop.example")]
    )
    assert results == [RowResult("accepted")] * 2
    assert not any("shop.example" in call.path for call in platform.journal)


@pytest.mark.parametrize(
    ("status", "tags", "result"),
    [
        ("subscribed", [LABEL], "retry"),
        ("unsubscribed", [LABEL], "retry"),
        ("archived", [LABEL], "accepted"),
        ("subscribed", [f"tag {number}" for number in range(60)], "retry"),  # an answer does not tell them all
    ],
)
def test_a_leaver_who_could_not_be_removed_is_tried_again(
    platform: Platform, status: str, tags: list[str], result: str
) -> None:
    destination = connect(platform)
    list_id = tag(platform, destination)
    platform.put("ana@shop.example", status, tags=tags)
    errors = [{"email_addresses": ["Ana@shop.example"], "error": "internal"}]
    platform.faults.append(Reply(200, {"errors": errors}))
    results = destination.remove(list_id, [person("ana@shop.example"), person("bo@shop.example")])
    assert [one.status for one in results] == [result, "accepted"]


def test_an_error_that_names_nobody_may_be_about_anybody(platform: Platform) -> None:
    destination = connect(platform)
    list_id = tag(platform, destination)
    platform.put("ana@shop.example", "subscribed", tags=[LABEL])
    platform.faults.append(Reply(200, {"errors": [{"email_addresses": [], "error": "internal"}], "error_count": 1}))
    results = destination.remove(list_id, [person("Ana@shop.example"), person("bo@shop.example")])
    assert [one.status for one in results] == ["retry", "accepted"]  # bo is not on the list


def test_a_contact_without_an_address_is_passed_over(platform: Platform) -> None:
    destination = connect(platform)
    list_id = tag(platform, destination)
    platform.put("ana@shop.example", "unsubscribed", tags=[LABEL])
    for number, nothing in enumerate(({"email_address": ""}, {"email_address": None})):
        platform.put(f"phone {number}", "unsubscribed", tags=[LABEL])
        platform.members[f"phone {number}"] |= nothing
    assert [answer.value for answer in destination.read_opt_outs(None)] == ["ana@shop.example"]
    assert list(destination.read_back(list_id)) == ["ana@shop.example"]


def test_opt_outs_are_read_since_the_last_time_and_returns_only_then(platform: Platform) -> None:
    platform.put("Left@shop.example", "unsubscribed", changed="2026-03-02T10:00:00+00:00")
    platform.put("dead@shop.example", "cleaned", changed="2026-03-02T12:00:00+02:00")
    platform.put("angry@shop.example", "unsubscribed", changed="2026-03-03T10:00:00+00:00")
    platform.members["angry@shop.example"]["unsubscribe_reason"] = "N/A (Abuse complaint)"
    platform.put("back@shop.example", "subscribed", changed="2026-03-04T10:00:00+00:00")
    destination = connect(platform)
    everything = list(destination.read_opt_outs(None))
    assert everything == [
        OptOut("email", "left@shop.example", "email", "opted_out", True, datetime(2026, 3, 2, 10)),
        OptOut("email", "angry@shop.example", "email", "complained", True, datetime(2026, 3, 3, 10)),
        OptOut("email", "dead@shop.example", "email", "bounced", True, datetime(2026, 3, 2, 10)),
    ]
    platform.journal.clear()
    assert [(found.value, found.is_active) for found in destination.read_opt_outs(datetime(2026, 3, 3, 10))] == [
        ("angry@shop.example", True), ("back@shop.example", False),
    ]  # fmt: skip
    reads = [call for call in platform.journal if call.path.endswith("/members")]
    assert {call.query["since_last_changed"] for call in reads} == {"2026-03-03T09:59:59+00:00"}


@pytest.mark.parametrize(
    ("said_no", "reads"),
    [
        ([], {"unsubscribed": 1, "cleaned": 1}),
        (
            ["back@shop.example", "gone@shop.example", "left@shop.example"],
            {"unsubscribed": 1, "cleaned": 1, "subscribed": 1, "": 3},
        ),
        (None, {"unsubscribed": 1, "cleaned": 1, "subscribed": 3}),
    ],
)
def test_after_a_large_load_of_ours_only_those_are_looked_at_who_may_have_come_back(
    platform: Platform, said_no: list[str] | None, reads: dict[str, int]
) -> None:
    for i in range(2500):
        platform.put(f"ours{i}@shop.example", "subscribed", changed=f"2026-03-04T10:{i // 60:02}:{i % 60:02}+00:00")
    platform.put("Back@shop.example", "subscribed", changed="2026-03-04T11:00:00+00:00")
    platform.put("left@shop.example", "unsubscribed", changed="2026-03-01T11:00:00+00:00")
    told = list(connect(platform).read_opt_outs(datetime(2026, 3, 3), said_no))
    asked = Counter(call.query.get("status", "") for call in platform.journal if "/members" in call.path)
    assert asked == reads
    back = OptOut("email", "back@shop.example", "email", "opted_out", False, datetime(2026, 3, 4, 11))
    assert (back in told) == (said_no != [])
    assert all(answer.value in ("back@shop.example",) or said_no is None for answer in told)


def test_more_opt_outs_than_a_page_are_all_read_also_within_one_second(platform: Platform) -> None:
    for i in range(1500):
        platform.put(f"early{i}@shop.example", "unsubscribed", changed="2026-03-02T10:00:00+00:00")
    for i in range(700):
        platform.put(f"late{i}@shop.example", "unsubscribed", changed=f"2026-03-03T10:{i // 60:02}:{i % 60:02}+00:00")
    found = {answer.value for answer in connect(platform).read_opt_outs(None)}
    assert len(found) == 2200


def test_the_list_is_read_back_with_those_who_get_no_marketing_mail(platform: Platform) -> None:
    destination = connect(platform)
    list_id = tag(platform, destination)
    platform.put("Ana@shop.example", "subscribed", tags=[LABEL])
    platform.put("bo@shop.example", "transactional", tags=[LABEL])
    assert set(destination.read_back(list_id)) == {"ana@shop.example", "bo@shop.example"}


@pytest.mark.parametrize(("leavers", "reads"), [(0, 3), (1, 3), (19, 3), (20, 5), (1950, 3)])
def test_nobody_is_missed_when_others_leave_while_the_list_is_read_back(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, leavers: int, reads: int
) -> None:
    destination = connect(platform)
    list_id = tag(platform, destination)
    for number in range(2500):
        platform.put(f"p{number}@shop.example", "subscribed", tags=[LABEL])
    answered = platform.page

    def leave_after_the_first(request: Request, key: str, items: list[Any]) -> Reply:
        reply = answered(request, key, items)
        if len([call for call in platform.journal if call.path.endswith("/members")]) == 1:
            for number in range(leavers):
                platform.put(f"p{number}@shop.example", "archived", tags=[])
        return reply

    monkeypatch.setattr(platform, "page", leave_after_the_first)
    found = list(destination.read_back(list_id))
    assert len(found) == len(set(found))
    assert set(found) >= {f"p{number}@shop.example" for number in range(leavers, 2500)}
    assert len(platform.journal) == reads


def test_a_list_that_has_another_order_each_time_is_for_later(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailchimp, "MAX_STEPS_BACK", 2)
    destination = connect(platform)
    list_id = tag(platform, destination)
    pages = (Reply(200, {"members": [{"email_address": f"{page}.{n}@x"} for n in range(1000)]}) for page in range(9))
    monkeypatch.setattr(platform, "page", lambda *_: next(pages))
    with pytest.raises(TransientError, match="keep changing"):
        list(destination.read_back(list_id))


def test_erasing_is_permanent_and_names_nobody_in_the_address(platform: Platform) -> None:
    connect(platform).erase({"email": ["ana@shop.example"]})
    call = platform.journal[-1]
    assert call.method == "POST"
    assert call.path.endswith("/actions/delete-permanent")
    assert "ana" not in call.path


def test_the_hash_in_the_address_of_a_call_is_in_no_log(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    platform.knows_status_if_new = False
    platform.faults.append(Reply(502))
    destination = connect(platform)
    destination.add(destination.ensure_audience(LABEL, "", []), [person("ana@shop.example")])
    (put,) = [call for call in platform.journal if call.method == "PUT"]
    written = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "has a problem of its own" in written
    assert put.path.rsplit("/", 1)[1] not in written


def test_a_bare_403_is_throttling_and_waited_for(platform: Platform, waits: list[float]) -> None:
    platform.faults.extend([Reply(403, "<html>Forbidden</html>"), Reply(403)])
    connect(platform).check()
    assert len(waits) == 2


def test_a_403_with_json_is_about_rights(platform: Platform, waits: list[float]) -> None:
    platform.faults.append(problem(403, "Forbidden", "You don't have permission"))
    with pytest.raises(AuthenticationError, match=r"mailchimp_default may not log in .*role Manager"):
        connect(platform).check()
    assert waits == []


def test_retry_after_is_obeyed_and_a_server_error_is_tried_again(platform: Platform, waits: list[float]) -> None:
    platform.faults.extend([Reply(429, {}, (("Retry-After", "7"),)), Reply(502, "<html>")])
    connect(platform).check()
    assert waits[0] == 7
    assert 2 <= waits[1] <= 3


def test_half_an_answer_is_asked_for_again(platform: Platform) -> None:
    platform.faults.append(Reply(200, '{"health_sta'))
    connect(platform).check()
    assert len([call for call in platform.journal if call.path.endswith("/ping")]) == 2


def test_a_platform_that_stays_away_is_left_to_the_scheduler(platform: Platform, waits: list[float]) -> None:
    platform.close()
    with pytest.raises(TransientError, match="gave no answer"):
        connect(platform).check()
    assert len(waits) == 5


def test_a_tag_deleted_at_the_tool_is_said_in_words(platform: Platform) -> None:
    with pytest.raises(AudienceRejected, match="not there any more"):
        connect(platform).remove(f"{LIST}/99", [person("ana@shop.example")])


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (Connection("c", password=KEY), "https://us6.api.mailchimp.com/3.0/"),
        (Connection("c", password=KEY, host="https://mail.example/"), "https://mail.example/3.0/"),
        (Connection("c", password=KEY, host="http://127.0.0.1:1/mailchimp/3.0/"), "http://127.0.0.1:1/mailchimp/3.0/"),
        (Connection("c", extra={"access_token": "t", "dc": "us9"}), "https://us9.api.mailchimp.com/3.0/"),
    ],
)
def test_the_address_comes_from_the_host_or_the_keys_data_centre(connection: Connection, url: str) -> None:
    assert str(Mailchimp(connection, MailchimpSettings(audience="x")).api._client.base_url) == url


def test_an_oauth_token_is_sent_as_bearer(platform: Platform) -> None:
    connection = Connection("c", host=f"{platform.url}/mailchimp", extra={"access_token": "oauth-token"})
    Mailchimp(connection, MailchimpSettings(audience="Newsletter")).check()
    assert platform.journal[0].headers["authorization"] == "Bearer oauth-token"


def test_a_key_without_data_centre_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="data centre"):
        Mailchimp(Connection("c", password="0123456789abcdef"), MailchimpSettings(audience="x"))


def test_a_wrong_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MAILCHIMP_DEFAULT", f'{{"password": "{KEY}"}}')
    with pytest.raises(ConfigurationError, match=r"audience: Field required.*new_contacts: Input should be"):
        get_destination("mailchimp", {"new_contacts": "subscribed"})
