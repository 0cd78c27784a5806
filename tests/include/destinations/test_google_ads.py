"""Google Ads: the official client over REST against a local stand-in of the Data Manager API."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from include.connections import Connection
from include.destinations.base import RequestOutcome, RowResult
from include.destinations.google_ads import GoogleAds, GoogleAdsSettings
from include.errors import AudienceRejected, AuthenticationError, ConfigurationError, TransientError
from tests.include.destinations.fake_google_ads import CUSTOMER, Platform, error, person, quota, status, violation
from tests.include.destinations.local_server import Reply

pytestmark = pytest.mark.usefixtures("waits")

LABEL = 'Carts "of the week"'
ANA, BO, CY = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def platform() -> Iterator[Platform]:
    server = Platform()
    yield server
    server.close()


def connect(platform: Platform, **options: object) -> GoogleAds:
    return GoogleAds(platform.connection(), GoogleAdsSettings.model_validate(options))


def make_list(platform: Platform, destination: GoogleAds) -> str:
    list_id = destination.ensure_audience(LABEL, "", [])
    platform.journal.clear()
    return list_id


def test_a_list_is_made_once_and_found_by_its_exact_name(platform: Platform) -> None:
    destination = connect(platform, membership_days=30)
    assert destination.ensure_audience(LABEL, "In the cart", []) == "42"
    assert connect(platform, membership_days=30).ensure_audience(LABEL, "", []) == "42"
    (created,) = [call for call in platform.journal if call.method in ("POST", "PATCH") and call.path != "/token"]
    assert created.path == f"/datamanager/v1/accountTypes/GOOGLE_ADS/accounts/{CUSTOMER}/userLists"
    assert created.body["displayName"] == LABEL
    assert created.body["membershipDuration"] == "2592000s"
    assert created.body["ingestedUserListInfo"] == {"uploadKeyTypes": [1]}
    assert created.headers["login-account"] == "accountTypes/GOOGLE_ADS/accounts/1112223333"


def test_a_list_with_another_membership_is_brought_up_to_date(platform: Platform) -> None:
    make_list(platform, connect(platform, membership_days=30))
    for _ in range(2):
        assert connect(platform, membership_days=540).ensure_audience(LABEL, "", []) == "42"
    (change,) = [call for call in platform.journal if call.method != "GET" and call.path != "/token"]
    assert (change.method, change.path.rsplit("/", 1)[1]) == ("PATCH", "42")
    assert (platform.lists["42"]["membershipDuration"], platform.lists["42"]["displayName"]) == ("46656000s", LABEL)


def test_a_membership_that_google_does_not_let_us_change_stops_the_push(platform: Platform) -> None:
    make_list(platform, connect(platform, membership_days=30))
    destination = connect(platform)
    destination.check()
    refused = error(400, "INVALID_ARGUMENT", violation("user_list", "SENSITIVE_USER_LIST_IMMUTABLE"))
    platform.faults.extend([Reply(200, {"userLists": list(platform.lists.values())}), refused])
    with pytest.raises(AudienceRejected, match=r"set membership_duration of .*: SENSITIVE_USER_LIST_IMMUTABLE"):
        destination.ensure_audience(LABEL, "", [])


def test_a_list_that_google_closed_for_want_of_use_is_opened_again(platform: Platform) -> None:
    list_id = make_list(platform, connect(platform))
    platform.lists[list_id] |= {"membershipStatus": "CLOSED", "closingReason": "UNUSED"}
    destination = connect(platform)
    destination.ensure_audience(LABEL, "", [])
    assert platform.journal[-1].query["updateMask"] == "membershipStatus"
    assert platform.lists[list_id]["membershipStatus"] in ("OPEN", 1)
    assert destination.add(list_id, [person(ANA)])[0].status == "pending"


def test_a_list_that_a_person_has_closed_lets_leavers_out_and_nobody_in(platform: Platform) -> None:
    list_id = make_list(platform, connect(platform))
    connect(platform).add(list_id, [person(ANA), person(BO)])
    platform.lists[list_id]["membershipStatus"] = "CLOSED"
    destination = connect(platform)
    destination.ensure_audience(LABEL, "", [])
    assert destination.remove(list_id, [person(ANA)])[0].status == "pending"
    with pytest.raises(AudienceRejected, match="is closed, so nobody who is added comes in"):
        destination.add(list_id, [person(CY)])
    assert platform.members[list_id] == {BO}


def test_a_list_that_is_only_shared_with_the_account_is_not_ours(platform: Platform) -> None:
    platform.lists["7"] = {"id": "7", "displayName": LABEL, "accessReason": "SHARED"}
    assert connect(platform).ensure_audience(LABEL, "", []) == "43"


def test_people_are_sent_with_consent_encoding_and_terms_and_answered_later(platform: Platform) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    assert destination.add(list_id, [person(ANA, BO), person(CY)]) == [RowResult("pending", "", "request-1")] * 2
    (call,) = [call for call in platform.journal if call.path != "/token"]
    account = {"accountType": "GOOGLE_ADS", "accountId": CUSTOMER}
    assert call.path == "/datamanager/v1/audienceMembers:ingest"
    assert call.body == {
        "destinations": [
            {"operatingAccount": account, "loginAccount": {**account, "accountId": "1112223333"},
             "productDestinationId": list_id}
        ],
        "audienceMembers": [
            {"userData": {"userIdentifiers": [{"emailAddress": ANA}, {"phoneNumber": BO}]}},
            {"userData": {"userIdentifiers": [{"emailAddress": CY}]}},
        ],
        "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"},
        "encoding": "HEX",
        "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
    }  # fmt: skip


def test_leavers_are_removed_with_the_identifiers_they_were_sent_with(platform: Platform) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    destination.add(list_id, [person(ANA), person(BO)])
    assert destination.remove(list_id, [person(ANA)]) == [RowResult("pending", "", "request-2")]
    assert platform.members[list_id] == {BO}
    assert platform.journal[-1].path == "/datamanager/v1/audienceMembers:remove"


def test_more_than_ten_identifiers_of_a_person_are_all_sent(platform: Platform) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    hashes = [f"{i:064x}" for i in range(1, 24)]
    assert destination.add(list_id, [person(hashes[0], *hashes[1:])]) == [RowResult("pending", "", "request-1")]
    assert platform.members[list_id] == set(hashes)
    assert max(len(m["userData"]["userIdentifiers"]) for m in platform.journal[-1].body["audienceMembers"]) == 10


def test_a_batch_with_people_of_many_identifiers_stays_within_the_size_of_a_request(platform: Platform) -> None:
    class Small(GoogleAds):
        max_batch_rows = 3

    destination = Small(platform.connection())
    list_id = make_list(platform, destination)
    hashes = [f"{i:064x}" for i in range(1, 100)]
    batch = [person(hashes[0]), person(hashes[1]), person(hashes[2], *hashes[3:20]), person(hashes[30])]
    results = destination.add(list_id, batch)
    assert [result.request_id for result in results] == ["request-1", "request-1", "request-2", "request-2"]
    assert len(platform.members[list_id]) == 21


def test_bad_rows_are_set_aside_and_the_rest_is_sent_again(platform: Platform) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    batch = [person("plain"), person(ANA), person(BO, "+1234"), person(CY), person("")]
    batch[4] = person("x").__class__("nobody", {}, {})
    results = destination.add(list_id, batch)
    assert [result.status for result in results] == ["rejected", "pending", "rejected", "pending", "rejected"]
    assert [results[0].reason, results[2].reason] == ["INVALID_SHA256_FORMAT"] * 2
    assert platform.members[list_id] == {ANA, CY}


def test_a_batch_of_bad_rows_only_ends_without_a_request(platform: Platform) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    assert [result.status for result in destination.add(list_id, [person("x"), person("y")])] == ["rejected"] * 2
    assert platform.requests == {}


def test_what_names_no_row_rejects_the_list_with_advice(platform: Platform) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    platform.faults.append(
        error(400, "INVALID_ARGUMENT", violation("terms_of_service", "TERMS_AND_CONDITIONS_NOT_SIGNED"))
    )
    with pytest.raises(AudienceRejected, match="accept the Customer Match terms in Google Ads"):
        destination.add(list_id, [person(ANA)])


def test_the_eu_declaration_is_explained(platform: Platform) -> None:
    platform.faults.extend(
        [
            Reply(200, {"userLists": []}),
            error(400, "INVALID_ARGUMENT", violation("user_list", "EU_POLITICAL_ADVERTISING_DECLARATION_REQUIRED")),
        ]
    )
    with pytest.raises(AudienceRejected, match="EU political ads"):
        connect(platform).ensure_audience(LABEL, "", [])


def test_the_quota_of_the_minute_is_waited_for(platform: Platform, waits: list[float]) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    platform.faults.append(quota("IngestionMutateRequestsPerMinutePerProject", "7s"))
    assert destination.add(list_id, [person(ANA)])[0].status == "pending"
    assert waits == [7.0]


def test_the_quota_of_the_day_is_not_waited_for(platform: Platform, waits: list[float]) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    platform.faults.append(quota("IngestionMutateRequestsPerDayPerProject"))
    with pytest.raises(TransientError, match="midnight Pacific") as caught:
        destination.add(list_id, [person(ANA)])
    assert waits == []
    assert 0 < (caught.value.retry_after or 0) <= 25 * 3600


@pytest.mark.parametrize("body", ["<html>down</html>", None, {"message": "try later"}])
def test_an_outage_of_the_login_is_no_wrong_credential(platform: Platform, waits: list[float], body: object) -> None:
    platform.login_faults.extend([Reply(503, body)] * 4)  # google-auth asks three times for what it may ask again
    connect(platform).check()
    assert platform.login_faults == []
    assert waits


def test_a_server_error_is_tried_again(platform: Platform, waits: list[float]) -> None:
    destination = connect(platform)
    list_id = make_list(platform, destination)
    platform.faults.extend([error(503, "UNAVAILABLE"), error(500, "INTERNAL")])
    assert destination.add(list_id, [person(ANA)])[0].status == "pending"
    assert len(waits) == 2


def test_a_revoked_login_is_final_and_says_which_connection(platform: Platform, waits: list[float]) -> None:
    platform.token_ok = False
    with pytest.raises(AuthenticationError, match="google_ads_default") as caught:
        connect(platform).check()
    assert waits == []
    assert "secret" not in str(caught.value)


def test_missing_rights_are_final(platform: Platform, waits: list[float]) -> None:
    platform.faults.append(error(403, "PERMISSION_DENIED"))
    with pytest.raises(AuthenticationError, match="Access and security"):
        connect(platform).check()
    assert waits == []


def test_a_platform_that_stays_away_is_left_to_the_scheduler(platform: Platform) -> None:
    platform.close()
    with pytest.raises(TransientError):
        connect(platform).check()


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (status("ingest", 10, "PROCESSING"), RequestOutcome("pending")),
        (status("ingest", 10, "REQUEST_STATUS_UNKNOWN"), RequestOutcome("pending")),
        (status("ingest", 10), RequestOutcome("succeeded", accepted=10)),
        (status("remove", 4), RequestOutcome("succeeded", accepted=4)),
        (
            status("ingest", 10, "PARTIAL_SUCCESS", DENIED_CONSENT=2, INVALID_FORMAT=1),
            RequestOutcome("partial", accepted=7, rejected=3, detail="denied_consent: 2, invalid_format: 1"),
        ),
        (
            status("ingest", 10, "FAILED", NO_CONSENT=10),
            RequestOutcome("failed", rejected=10, detail="no_consent: 10"),
        ),
        (
            status("ingest", 10, "FAILED", INTERNAL_ERROR=10),
            RequestOutcome("failed", rejected=10, detail="internal_error: 10", try_again=True),
        ),
    ],
)
def test_what_became_of_a_request(platform: Platform, told: dict[str, object], outcome: RequestOutcome) -> None:
    platform.requests["r1"] = told
    assert connect(platform).outcome("r1") == outcome


@pytest.mark.parametrize(
    "reasons",
    [{}, {"NO_CONSENT": 3}, {"NO_CONSENT": 9, "INTERNAL_ERROR": 1}],
    ids=["none", "for some", "its own fault"],
)
def test_a_failure_without_a_reason_refuses_nobody_for_good(platform: Platform, reasons: dict[str, int]) -> None:
    platform.requests["r1"] = status("ingest", 10, "FAILED", **reasons)
    found = connect(platform).outcome("r1")
    assert (found.status, found.try_again) == ("failed", True)
    assert bool(reasons) != (found.detail == "Google gave no reason")


def test_a_request_google_does_not_know_any_more_is_sent_again(platform: Platform) -> None:
    found = connect(platform).outcome("from-long-ago")
    assert (found.status, found.try_again) == ("failed", True)


def test_a_key_file_may_come_as_text_and_a_broken_one_is_not_quoted() -> None:
    key = {"type": "service_account", "private_key": "PRIVATE", "client_email": "x@y.example", "token_uri": "http://x"}
    broken = Connection("google_ads_default", extra={"customer_id": "1", "keyfile_dict": json.dumps(key)})
    with pytest.raises(ConfigurationError, match="keyfile_dict") as caught:
        GoogleAds(broken).check()
    assert "PRIVATE" not in str(caught.value)


def test_what_is_missing_in_the_connection_is_named() -> None:
    with pytest.raises(ConfigurationError, match="customer_id"):
        GoogleAds(Connection("google_ads_default"))
    with pytest.raises(ConfigurationError, match="refresh_token"):
        GoogleAds(Connection("google_ads_default", extra={"customer_id": "1"})).check()


def test_how_often_to_ask_comes_from_the_connection(platform: Platform) -> None:
    assert connect(platform).poll_seconds == 60
    assert GoogleAds(Connection("g", extra={"customer_id": "1", "poll_seconds": 1})).poll_seconds == 1


def test_another_account_may_be_named_in_the_audience_file(platform: Platform) -> None:
    assert connect(platform, customer_id="999-888-7777").customer_id == "9998887777"
