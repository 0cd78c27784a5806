"""The Data Manager stand-in: fast-fail, results later, and the official client against a real server."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from include.sandbox.server import Sandbox

ACCOUNT = "4445556666"
LISTS = f"/accountTypes/GOOGLE_ADS/accounts/{ACCOUNT}/userLists"
HASH = "ab" * 32
OTHER = "cd" * 32
GRANTED = {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"}
FORM = {"grant_type": "refresh_token", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
ASSERTION = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def make_list(google: Any, name: str = "Cart abandoners", **more: Any) -> str:
    body = {"displayName": name, "ingestedUserListInfo": {"uploadKeyTypes": ["CONTACT_ID"]}, **more}
    answer = google.post(LISTS, body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def member(*hashes: str, **more: Any) -> dict[str, Any]:
    return {"userData": {"userIdentifiers": [{"emailAddress": one} for one in hashes]}, **more}


def request(list_id: str, *members: dict[str, Any], **more: Any) -> dict[str, Any]:
    account = {"accountType": "GOOGLE_ADS", "accountId": ACCOUNT}
    body = {
        "destinations": [{"operatingAccount": account, "productDestinationId": list_id}],
        "audienceMembers": list(members),
        "consent": GRANTED,
        "encoding": "HEX",
        "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
        **more,
    }
    return {name: value for name, value in body.items() if value is not None}


def removal(list_id: str, *members: dict[str, Any], **more: Any) -> dict[str, Any]:
    return request(list_id, *members, **{"consent": None, "termsOfService": None, **more})


def ingest(google: Any, body: dict[str, Any]) -> str:
    answer = google.post("/audienceMembers:ingest", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["requestId"])


def status(google: Any, request_id: str) -> dict[str, Any]:
    [one] = google.get("/requestStatus:retrieve", requestId=request_id).json()["requestStatusPerDestination"]
    result: dict[str, Any] = one
    return result


def done(google: Any, request_id: str) -> dict[str, Any]:
    assert status(google, request_id)["requestStatus"] == "PROCESSING"
    return status(google, request_id)


def held(google: Any, list_id: str) -> list[str]:
    lists = google.client.get("/_sandbox/lists").json()
    [members] = [one["members"] for one in lists if one["audience_id"] == list_id]
    return list(members)


def reasons(answer: Any, status: int = 400) -> list[tuple[str, str]]:
    """The fields a refusal names, with Google's reason."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    return [
        (one["field"], one.get("reason", ""))
        for detail in error["details"]
        for one in detail.get("fieldViolations", [])
    ]


# who may come in


def test_the_token_endpoint_takes_a_refresh_token_and_the_token_expires(client: Any, google: Any, clock: Any) -> None:
    answer = client.post("/datamanager/token", data=FORM).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3599)
    assert google.get(LISTS).status_code == 200
    clock.pass_(3599)
    late = google.get(LISTS)
    assert (late.status_code, late.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert late.json()["error"]["details"][0]["reason"] == "ACCESS_TOKEN_EXPIRED"


def jwt(**claims: Any) -> str:
    def part(data: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.c2lnbmF0dXJl"


def test_the_token_endpoint_takes_a_signed_assertion(client: Any, clock: Any) -> None:
    claims = {
        "iss": "robot@project.iam.gserviceaccount.com", "aud": "http://sandbox/datamanager/token",
        "scope": "https://www.googleapis.com/auth/datamanager", "iat": clock(), "exp": clock() + 3600,
    }  # fmt: skip
    form = {"grant_type": ASSERTION, "assertion": jwt(**claims)}
    assert client.post("/datamanager/token", data=form).json()["access_token"].startswith("ya29.")
    for wrong in ({"exp": clock() - 1}, {"scope": "https://www.googleapis.com/auth/adwords"}, {"aud": ""}):
        answer = client.post("/datamanager/token", data={**form, "assertion": jwt(**{**claims, **wrong})})
        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({**FORM, "refresh_token": "revoked-1"}, 400, "invalid_grant"),
        ({**FORM, "refresh_token": ""}, 400, "invalid_request"),
        ({**FORM, "client_id": ""}, 401, "invalid_client"),
        ({**FORM, "grant_type": "password"}, 400, "unsupported_grant_type"),
        ({**FORM, "scope": "https://www.googleapis.com/auth/adwords"}, 400, "invalid_scope"),
        ({**FORM, "audience": "x"}, 400, "invalid_request"),
        ({"grant_type": ASSERTION, "assertion": "a.b"}, 400, "invalid_grant"),
    ],
)
def test_another_grant_is_refused(client: Any, form: dict[str, str], status: int, error: str) -> None:
    answer = client.post("/datamanager/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_the_token_endpoint_wants_a_form(client: Any) -> None:
    assert client.post("/datamanager/token", json=FORM).json()["error"] == "invalid_request"


@pytest.mark.parametrize("headers", [{"Authorization": ""}, {"Authorization": "Bearer made-up"}])
def test_without_a_token_of_ours_nothing_is_answered(google: Any, headers: dict[str, str]) -> None:
    answer = google("GET", LISTS, headers=headers)
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_the_quota_of_the_minute_is_per_kind_of_call(
    make: Callable[..., Any], google_of: Callable[..., Any], clock: Any
) -> None:
    google = google_of(make(datamanager={"requests_per_minute": 2}))
    list_id = make_list(google)
    for _ in range(2):
        ingest(google, request(list_id, member(HASH)))
    clock.pass_(20)
    answer = google.post("/audienceMembers:ingest", request(list_id, member(HASH)))
    assert (answer.status_code, answer.json()["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    info, retry = answer.json()["error"]["details"]
    assert info["metadata"]["quota_limit"] == "IngestionMutateRequestsPerMinutePerProject"
    assert retry["retryDelay"] == "40s"
    assert google.get(f"{LISTS}/{list_id}").status_code == 200
    clock.pass_(40)
    ingest(google, request(list_id, member(HASH)))


# lists


def test_a_list_is_made_found_by_name_changed_and_dropped(google: Any) -> None:
    list_id = make_list(google, 'Carts "A"', membershipDuration="2592000s", description="d")
    make_list(google, "Other")
    found = google.get(LISTS, filter='display_name = "Carts \\"A\\""').json()["userLists"]
    assert [one["id"] for one in found] == [list_id]
    assert found[0]["name"] == f"accountTypes/GOOGLE_ADS/accounts/{ACCOUNT}/userLists/{list_id}"
    assert (found[0]["membershipDuration"], found[0]["accessReason"]) == ("2592000s", "OWNED")
    assert "sizeInfo" not in found[0]
    answer = google("PATCH", f"{LISTS}/{list_id}?updateMask=display_name", {"displayName": "Carts", "description": "x"})
    assert (answer.json()["displayName"], answer.json()["description"]) == ("Carts", "d")
    assert google("DELETE", f"{LISTS}/{list_id}").status_code == 200
    assert google.get(f"{LISTS}/{list_id}").status_code == 404
    assert [one["displayName"] for one in google.get(LISTS).json()["userLists"]] == ["Other"]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("", ["A1", "A2", "B"]),
        ('displayName = "B"', ["B"]),
        ('display_name : "a"', ["A1", "A2"]),
        ('display_name : "a" AND display_name != "A1"', ["A2"]),
        ('IN(display_name, "A1", "B")', ["A1", "B"]),
        ("id > 8000000001", ["A2", "B"]),
        ('membership_status = "CLOSED"', []),
    ],
)
def test_lists_are_filtered(google: Any, expression: str, found: list[str]) -> None:
    for name in ("A1", "A2", "B"):
        make_list(google, name)
    assert [one["displayName"] for one in google.get(LISTS, filter=expression).json()["userLists"]] == found


@pytest.mark.parametrize(
    "expression", ['name = "A"', 'display_name = "A" OR id = 1', "display_name", 'display_name > "A"']
)
def test_a_filter_that_cannot_be_read_is_refused(google: Any, expression: str) -> None:
    assert reasons(google.get(LISTS, filter=expression)) == [("filter", "INVALID_FILTER")]


def test_lists_are_paged(google: Any) -> None:
    for name in ("A", "B", "C"):
        make_list(google, name)
    first = google.get(LISTS, pageSize=2).json()
    rest = google.get(LISTS, pageSize=2, pageToken=first["nextPageToken"]).json()
    assert [one["displayName"] for one in first["userLists"] + rest["userLists"]] == ["A", "B", "C"]
    assert "nextPageToken" not in rest


CONTACTS = {"uploadKeyTypes": ["CONTACT_ID"]}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"displayName": "Taken", "ingestedUserListInfo": CONTACTS}, "DISPLAY_NAME_ALREADY_USED"),
        ({"ingestedUserListInfo": CONTACTS}, "REQUIRED_FIELD_MISSING"),
        ({"displayName": "A"}, "REQUIRED_FIELD_MISSING"),
        ({"displayName": "A", "ingestedUserListInfo": {"uploadKeyTypes": []}}, "REQUIRED_FIELD_MISSING"),
        ({"displayName": "A", "ingestedUserListInfo": {"uploadKeyTypes": ["PAIR_ID"]}},
         "UNSUPPORTED_USER_LIST_UPLOAD_KEY_TYPES"),
        ({"displayName": "A", "ingestedUserListInfo": {"uploadKeyTypes": ["MOBILE_ID"]}}, "REQUIRED_FIELD_MISSING"),
        ({"displayName": "A", "ingestedUserListInfo": CONTACTS, "membershipDuration": "3600s"}, "INVALID_ARGUMENT"),
        ({"displayName": "A", "ingestedUserListInfo": CONTACTS, "membershipDuration": "46742400s"},
         "MEMBERSHIP_DURATION_TOO_LONG"),
        ({"displayName": "A", "ingestedUserListInfo": CONTACTS, "membershipDuration": 30}, ""),
        ({"displayName": "A", "ingestedUserListInfo": CONTACTS, "lifeSpan": 30}, ""),
        ({"displayName": 5, "ingestedUserListInfo": CONTACTS}, ""),
        ({"displayName": "A", "ingestedUserListInfo": {"uploadKeyTypes": ["EMAIL"]}}, ""),
    ],
)  # fmt: skip
def test_a_wrong_list_is_refused(google: Any, body: dict[str, Any], reason: str) -> None:
    make_list(google, "Taken")
    [(_, given)] = reasons(google.post(LISTS, body))
    assert given == reason
    assert len(google.get(LISTS).json()["userLists"]) == 1


def test_upload_key_types_are_fixed(google: Any) -> None:
    list_id = make_list(google)
    body = {"ingestedUserListInfo": {"uploadKeyTypes": ["USER_ID"]}}
    answer = google("PATCH", f"{LISTS}/{list_id}?updateMask=ingestedUserListInfo", body)
    assert reasons(answer)[0][1] == "IMMUTABLE_FIELD_FOR_UPDATE"
    assert reasons(google("PATCH", f"{LISTS}/{list_id}?updateMask=id", {}))[0][1] == "INVALID_UPDATE_MASK"


def test_an_account_with_dashes_and_an_unknown_parameter_are_refused(google: Any) -> None:
    assert (
        reasons(google.get("/accountTypes/GOOGLE_ADS/accounts/444-555-6666/userLists"))[0][1] == "INVALID_RESOURCE_NAME"
    )
    assert reasons(google.get(LISTS, limit=5)) == [("", "")]


def test_validate_only_makes_no_list(google: Any) -> None:
    body = {"displayName": "A", "ingestedUserListInfo": CONTACTS}
    assert google.post(f"{LISTS}?validateOnly=true", body).status_code == 200
    assert google.get(LISTS).json()["userLists"] == []


# members


def test_members_arrive_when_the_request_is_processed(google: Any) -> None:
    list_id = make_list(google)
    request_id = ingest(google, request(list_id, member(HASH, OTHER)))
    assert held(google, list_id) == []
    result = done(google, request_id)
    assert result["requestStatus"] == "SUCCESS"
    counts = result["audienceMembersIngestionStatus"]["userDataIngestionStatus"]
    assert counts == {
        "recordCount": "1",
        "userIdentifierCount": "2",
        "uploadMatchRateRange": "MATCH_RATE_RANGE_NOT_ELIGIBLE",
    }
    assert held(google, list_id) == [HASH, OTHER]
    answer = google.post("/audienceMembers:remove", removal(list_id, member(HASH)))
    result = done(google, answer.json()["requestId"])
    assert result["audienceMembersRemovalStatus"]["userDataRemovalStatus"]["recordCount"] == "1"
    assert held(google, list_id) == [OTHER]


def test_a_request_nobody_asks_after_is_processed_in_time_and_in_order(google: Any, clock: Any) -> None:
    list_id = make_list(google)
    ingest(google, request(list_id, member(HASH), member(OTHER)))
    google.post("/audienceMembers:remove", removal(list_id, member(HASH)))
    clock.pass_(59)
    assert held(google, list_id) == []
    clock.pass_(1)
    assert held(google, list_id) == [OTHER]


def test_one_bad_member_refuses_the_whole_request(google: Any) -> None:
    list_id = make_list(google)
    answer = google.post(
        "/audienceMembers:ingest", request(list_id, member(HASH), member("ana@shop.example"), member(HASH.upper()))
    )
    assert reasons(answer) == [
        (f"audience_members[{index}].user_data.user_identifiers[0].email_address", "INVALID_SHA256_FORMAT")
        for index in (1, 2)
    ]
    info = answer.json()["error"]["details"][0]
    assert (info["reason"], info["domain"]) == ("INVALID_ARGUMENT", "datamanager.googleapis.com")
    assert info["metadata"]["requestId"]


IDENTIFIER = {"emailAddress": HASH}


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (member("z" * 64), "INVALID_HEX_ENCODING"),
        (member(HASH[:-2]), "INVALID_SHA256_FORMAT"),
        (member(""), "INVALID_SHA256_FORMAT"),
        (member(*[HASH] * 11), "TOO_MANY_USER_IDENTIFIERS"),
        (member(), "REQUIRED_FIELD_MISSING"),
        ({"userData": {"userIdentifiers": [{}]}}, "REQUIRED_FIELD_MISSING"),
        ({}, "INVALID_AUDIENCE_MEMBER"),
        ({"consent": GRANTED}, "INVALID_AUDIENCE_MEMBER"),
        ({"ppidData": {"ppids": ["x"]}}, "NOT_ALLOWLISTED"),
        ({"mobileData": {"mobileIds": ["38400000-8cf0-11bd-b23e-10b96e40000d"]}}, "INVALID_USER_LIST_TYPE"),
        (member(HASH, destinationReferences=["x"]), "INVALID_DESTINATION"),
        (
            {"userData": {"userIdentifiers": [{"address": {"givenName": HASH, "familyName": HASH}}]}},
            "REQUIRED_FIELD_MISSING",
        ),
        ({"userData": {"userIdentifiers": [{"phoneNumber": "+4512345678"}]}}, "INVALID_SHA256_FORMAT"),
        ({"userData": {"userIdentifiers": [{"emailAddress": HASH, "phoneNumber": HASH}]}}, ""),
        ({"userData": {"userIdentifiers": IDENTIFIER}}, ""),
        ({"userData": {"userIdentifiers": [{"email": HASH}]}}, ""),
        ({"userData": {"userIdentifiers": [{"emailAddress": 5}]}}, ""),
        ({"userData": {"userIdentifiers": [IDENTIFIER]}, "userIdData": {"userId": "x"}}, ""),
        (member(HASH, email="x"), ""),
    ],
)
def test_a_wrong_member_is_refused(google: Any, one: dict[str, Any], reason: str) -> None:
    list_id = make_list(google)
    found = reasons(google.post("/audienceMembers:ingest", request(list_id, one)))
    assert [given for _, given in found] == [reason]


OPERATING = {"accountType": "GOOGLE_ADS", "accountId": ACCOUNT}


def goal(**more: Any) -> dict[str, Any]:
    return {"operatingAccount": OPERATING, "productDestinationId": "8000000001", **more}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"encoding": None}, "REQUIRED_FIELD_MISSING"),
        ({"encoding": 0}, "REQUIRED_FIELD_MISSING"),
        ({"encoding": "BASE64"}, "INVALID_SHA256_FORMAT"),
        ({"termsOfService": None}, "TERMS_AND_CONDITIONS_NOT_SIGNED"),
        ({"termsOfService": {"customerMatchTermsOfServiceStatus": "REJECTED"}}, "TERMS_AND_CONDITIONS_NOT_SIGNED"),
        ({"audienceMembers": []}, "REQUIRED_FIELD_MISSING"),
        ({"audienceMembers": [member(HASH)] * 10_001}, "TOO_MANY_AUDIENCE_MEMBERS"),
        ({"destinations": []}, "REQUIRED_FIELD_MISSING"),
        ({"destinations": [goal(reference=str(n)) for n in range(11)]}, "TOO_MANY_DESTINATIONS"),
        ({"destinations": [goal(reference="a"), goal(reference="a")]}, "DUPLICATE_DESTINATION_REFERENCE"),
        ({"destinations": [goal(productDestinationId="9")]}, "INVALID_USER_LIST_ID"),
        ({"destinations": [goal(productDestinationId="")]}, "REQUIRED_FIELD_MISSING"),
        ({"destinations": [goal(operatingAccount={**OPERATING, "accountId": "1112223333"})]}, "INVALID_USER_LIST_ID"),
        ({"destinations": [goal(operatingAccount={**OPERATING, "accountId": "444-555"})]}, "INVALID_NUMBER_FORMAT"),
        ({"destinations": [goal(operatingAccount={**OPERATING, "accountType": "DISPLAY_VIDEO_ADVERTISER"})]},
         "DESTINATION_ACCOUNT_TYPE_MISMATCH"),
        ({"destinations": [goal(loginAccount={**OPERATING, "accountId": "1112223333"})]},
         "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH"),
        ({"destinations": [goal(linkedAccount=OPERATING)]},
         "LINKED_ACCOUNT_ONLY_ALLOWED_WITH_DATA_PARTNER_LOGIN_ACCOUNT"),
        ({"destinations": [goal(operatingAccount={**OPERATING, "accountType": "GOOGLE"})]}, ""),
        ({"consent": {"adUserData": "YES"}}, ""),
        ({"members": []}, ""),
        ({"validateOnly": "true"}, ""),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused(google: Any, more: dict[str, Any], reason: str) -> None:
    list_id = make_list(google)
    found = reasons(google.post("/audienceMembers:ingest", request(list_id, member(HASH), **more)))
    assert {given for _, given in found} == {reason}


def test_a_removal_takes_no_consent_and_no_terms(google: Any) -> None:
    list_id = make_list(google)
    assert reasons(google.post("/audienceMembers:remove", removal(list_id, member(HASH), consent=GRANTED))) == [
        ("", "")
    ]


def test_two_kinds_of_data_in_one_request_are_refused(google: Any) -> None:
    list_id = make_list(google, ingestedUserListInfo={"uploadKeyTypes": ["CONTACT_ID", "USER_ID"]})
    body = request(list_id, member(HASH), {"userIdData": {"userId": "x"}})
    assert reasons(google.post("/audienceMembers:ingest", body)) == [
        ("audience_members", "MULTIPLE_DATA_TYPES_NOT_ALLOWED")
    ]


def test_the_login_account_that_made_the_list_may_fill_it(google: Any) -> None:
    manager = {"accountType": "GOOGLE_ADS", "accountId": "1112223333"}
    body = {"displayName": "Carts", "ingestedUserListInfo": CONTACTS}
    headers = {"login-account": "accountTypes/GOOGLE_ADS/accounts/1112223333"}
    list_id = google("POST", LISTS, body, headers=headers).json()["id"]
    one = {"operatingAccount": OPERATING, "loginAccount": manager, "productDestinationId": list_id}
    ingest(google, request(list_id, member(HASH), destinations=[one]))


def test_base64_and_other_spellings_are_the_same_member(google: Any) -> None:
    list_id = make_list(google)
    encoded = base64.b64encode(bytes.fromhex(HASH)).decode()
    body = {
        "destinations": [{
            "operating_account": {"account_type": 1, "account_id": ACCOUNT}, "product_destination_id": list_id,
        }],
        "audience_members": [{"user_data": {"user_identifiers": [{"email_address": encoded}]}}],
        "consent": {"ad_user_data": 1, "ad_personalization": 1},
        "encoding": 2,
        "terms_of_service": {"customer_match_terms_of_service_status": 1},
    }  # fmt: skip
    done(google, ingest(google, body))
    assert held(google, list_id) == [HASH]


def test_members_without_consent_are_counted_and_left_out(google: Any) -> None:
    list_id = make_list(google)
    denied = {"consent": {**GRANTED, "adUserData": "CONSENT_DENIED"}}
    unsaid = {"consent": {"adUserData": "CONSENT_GRANTED"}}
    body = request(list_id, member(HASH), member(OTHER, **denied), member("ef" * 32, **unsaid))
    result = done(google, ingest(google, body))
    assert result["requestStatus"] == "PARTIAL_SUCCESS"
    assert result["errorInfo"]["errorCounts"] == [
        {"recordCount": "1", "reason": "PROCESSING_ERROR_REASON_DENIED_CONSENT"},
        {"recordCount": "1", "reason": "PROCESSING_ERROR_REASON_NO_CONSENT"},
    ]
    assert held(google, list_id) == [HASH]
    result = done(google, ingest(google, request(list_id, member(OTHER), consent=None)))
    assert result["requestStatus"] == "FAILED"
    assert result["errorInfo"]["errorCounts"][0]["reason"] == "PROCESSING_ERROR_REASON_NO_CONSENT"


def test_validate_only_changes_nothing_and_has_no_status(google: Any, clock: Any) -> None:
    list_id = make_list(google)
    request_id = ingest(google, request(list_id, member(HASH), validateOnly=True))
    assert reasons(google.get("/requestStatus:retrieve", requestId=request_id)) == [
        ("request_id", "INVALID_REQUEST_ID")
    ]
    clock.pass_(3000)
    assert held(google, list_id) == []


def test_remove_all_takes_those_last_added_before_its_time(google: Any, clock: Any) -> None:
    list_id = make_list(google)
    done(google, ingest(google, request(list_id, member(HASH), member(OTHER))))
    clock.pass_(10)
    cut = "2026-11-24T10:00:10Z"
    done(google, ingest(google, request(list_id, member(HASH))))
    destinations = request(list_id)["destinations"]
    future = {"destinations": destinations, "removeAsOfTime": "2026-11-24T10:00:11Z"}
    answer = google.post("/audienceMembers:removeAll", future)
    assert reasons(answer) == [("remove_as_of_time", "INVALID_REMOVE_AS_OF_TIME")]
    answer = google.post("/audienceMembers:removeAll", {"destinations": destinations, "removeAsOfTime": cut})
    assert done(google, answer.json()["requestId"])["removeAllAudienceMembersStatus"] == {}
    assert held(google, list_id) == [HASH]
    clock.pass_(1)
    answer = google.post("/audienceMembers:removeAll", {"destinations": destinations})
    done(google, answer.json()["requestId"])
    assert held(google, list_id) == []


def test_sizes_and_match_rate_come_with_the_first_processed_request_and_are_stable(google: Any) -> None:
    list_id = make_list(google)
    members = [member(f"{number:064x}") for number in range(1000)]
    result = done(google, ingest(google, request(list_id, *members)))
    counts = result["audienceMembersIngestionStatus"]["userDataIngestionStatus"]
    found = google.get(f"{LISTS}/{list_id}").json()
    rate = found["ingestedUserListInfo"]["contactIdInfo"]["matchRatePercentage"]
    assert 55 <= rate <= 69
    assert counts["uploadMatchRateRange"] in ("MATCH_RATE_RANGE_51_TO_60", "MATCH_RATE_RANGE_61_TO_70")
    assert 500 <= int(found["sizeInfo"]["displayNetworkMembersCount"]) <= 650
    assert int(found["sizeInfo"]["displayNetworkMembersCount"]) % 10 == 0
    assert len(held(google, list_id)) == 1000
    assert google.get(f"{LISTS}/{list_id}").json() == found


def test_members_leave_when_the_membership_duration_is_over(google: Any, clock: Any) -> None:
    list_id = make_list(google, membershipDuration="86400s")
    done(google, ingest(google, request(list_id, member(HASH))))
    clock.pass_(86_401)
    google.headers = {
        "Authorization": "Bearer " + google.client.post("/datamanager/token", data=FORM).json()["access_token"]
    }
    google.get(f"{LISTS}/{list_id}")
    assert held(google, list_id) == []


def test_enums_are_numbers_for_clients_that_ask_for_them(google: Any) -> None:
    list_id = make_list(google)
    found = google("GET", f"{LISTS}/{list_id}?$alt=json;enum-encoding=int").json()
    assert (found["accessReason"], found["ingestedUserListInfo"]["uploadKeyTypes"]) == (1, [1])


# the official client


@pytest.fixture
def running() -> Iterator[str]:
    """The address of a sandbox on a real server."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    sandbox = Sandbox()
    server = uvicorn.Server(uvicorn.Config(sandbox, log_level="warning", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    assert server.started
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/datamanager"
    server.should_exit = True
    thread.join(10)
    sandbox.close()


def test_the_official_client_makes_fills_and_empties_a_list(running: str) -> None:
    import datetime

    from google.ads import datamanager_v1 as dm
    from google.api_core import exceptions
    from google.api_core.client_options import ClientOptions
    from google.oauth2.credentials import Credentials

    credentials = Credentials(
        None, refresh_token="r", client_id="c", client_secret="s", token_uri=f"{running}/token",
        scopes=["https://www.googleapis.com/auth/datamanager"],
    )  # fmt: skip
    options = ClientOptions(api_endpoint=running)
    lists = dm.UserListServiceClient(transport="rest", credentials=credentials, client_options=options)
    ingestion = dm.IngestionServiceClient(transport="rest", credentials=credentials, client_options=options)
    parent = f"accountTypes/GOOGLE_ADS/accounts/{ACCOUNT}"
    kinds = [dm.IngestedUserListInfo.UploadKeyType.CONTACT_ID]
    wanted = dm.UserList(
        display_name="Carts",
        membership_duration=datetime.timedelta(days=30),
        ingested_user_list_info=dm.IngestedUserListInfo(upload_key_types=kinds),
    )
    made = lists.create_user_list(parent=parent, user_list=wanted)
    found = list(lists.list_user_lists(request={"parent": parent, "filter": 'display_name = "Carts"'}))
    assert [(one.id, one.membership_duration.days) for one in found] == [(made.id, 30)]
    with pytest.raises(exceptions.BadRequest) as taken:
        lists.create_user_list(parent=parent, user_list=wanted)
    assert taken.value.details[1]["fieldViolations"][0]["reason"] == "DISPLAY_NAME_ALREADY_USED"

    account = dm.ProductAccount(account_type=dm.ProductAccount.AccountType.GOOGLE_ADS, account_id=ACCOUNT)
    destination = dm.Destination(operating_account=account, product_destination_id=str(made.id))

    def wanted_request(*hashes: str) -> Any:
        return dm.IngestAudienceMembersRequest(
            destinations=[destination],
            audience_members=[
                dm.AudienceMember(user_data=dm.UserData(user_identifiers=[dm.UserIdentifier(email_address=one)]))
                for one in hashes
            ],
            consent=dm.Consent(
                ad_user_data=dm.ConsentStatus.CONSENT_GRANTED, ad_personalization=dm.ConsentStatus.CONSENT_GRANTED
            ),
            encoding=dm.Encoding.HEX,
            terms_of_service=dm.TermsOfService(customer_match_terms_of_service_status=dm.TermsOfServiceStatus.ACCEPTED),
        )

    with pytest.raises(exceptions.BadRequest):
        ingestion.ingest_audience_members(request=wanted_request(HASH, "plain"))
    request_id = ingestion.ingest_audience_members(request=wanted_request(HASH, OTHER)).request_id
    seen = [
        ingestion.retrieve_request_status(request={"request_id": request_id}).request_status_per_destination[0]
        for _ in range(2)
    ]
    assert [one.request_status.name for one in seen] == ["PROCESSING", "SUCCESS"]
    assert seen[1].audience_members_ingestion_status.user_data_ingestion_status.record_count == 2
    gone = ingestion.remove_all_audience_members(
        request=dm.RemoveAllAudienceMembersRequest(destinations=[destination]), timeout=30
    )
    for _ in range(2):
        last = ingestion.retrieve_request_status(request={"request_id": gone.request_id})
    assert last.request_status_per_destination[0].request_status.name == "SUCCESS"
    lists.delete_user_list(name=made.name)
    with pytest.raises(exceptions.NotFound):
        lists.get_user_list(name=made.name)
    assert lists.create_user_list(parent=parent, user_list=wanted).id > made.id
