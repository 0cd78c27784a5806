"""The contract suite notices what it is there for: a destination broken on purpose, once for each promise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from include.destinations.base import Destination, Member, OptOut, RowResult
from include.destinations.google_ads import GoogleAds
from include.destinations.mailchimp import Mailchimp
from include.errors import AudienceRejected, AuthenticationError, TransientError
from include.identity import email_md5
from tests.include.destinations import test_contract as contract
from tests.include.destinations.contract_target import contract_target
from tests.include.destinations.running_sandbox import RunningSandbox
from tests.include.destinations.sides import side_of

log = logging.getLogger("include.destinations.broken")
Check = Callable[..., None]


class UnsubscribesLeavers(Mailchimp):
    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        audience = list_id.split("/")[0]
        for member in batch:
            path = f"/lists/{audience}/members/{email_md5(member.identifiers['email'][0])}"
            self.api.call("PUT", path, "leave", json={"status": "unsubscribed"})
        return super().remove(list_id, batch)


class ArchivesLeavers(Mailchimp):
    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        audience = list_id.split("/")[0]
        for member in batch:
            self.api.call("DELETE", f"/lists/{audience}/members/{email_md5(member.identifiers['email'][0])}", "leave")
        return [RowResult("accepted") for _ in batch]


class KeepsLeavers(Mailchimp):
    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        return [RowResult("accepted") for _ in batch]


class CountsRefusedAsAccepted(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        super().add(list_id, batch)
        return [RowResult("accepted") for _ in batch]


class OneBadRowFailsTheBatch(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        results = super().add(list_id, batch)
        if any(result.status == "rejected" for result in results):
            return [RowResult("rejected", "a row of the batch is wrong") for _ in batch]
        return results


class AnswersInAnotherOrder(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        return sorted(super().add(list_id, batch), key=lambda result: result.status)


class SaysNothingOfARow(Mailchimp):
    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        return super().remove(list_id, batch)[:3]


class SendsOneByOne(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        return [result for member in batch for result in super(SendsOneByOne, self).add(list_id, [member])]


class CallsForNobody(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        self.api.call("GET", "/ping", "see whether it is there")
        return super().add(list_id, batch)


class TriesAWrongCredentialAgain(Mailchimp):
    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        for _ in range(3):
            try:
                return super().ensure_audience(label, description, fields)
            except AuthenticationError as error:
                last = error
        raise last


class DoesNotWaitAsTold(Mailchimp):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        once = self.api._once

        def hasty(*call: Any) -> Any:
            try:
                return once(*call)
            except TransientError as error:
                error.retry_after = 2.0
                raise

        self.api._once = hasty  # type: ignore[method-assign]


class GivesUpAtACutConnection(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        try:
            return super().add(list_id, batch)
        except TransientError as error:
            raise AudienceRejected("Mailchimp is not there") from error


class ARepeatIsAnError(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        there = set(self.read_back(list_id))
        results = super().add(list_id, batch)
        return [
            RowResult("rejected", "already a member") if member.member_key in there else result
            for member, result in zip(batch, results, strict=True)
        ]


class RaisesConsentOfAll(Mailchimp):
    def _row(self, member: Member, tag: str) -> dict[str, Any]:
        return {**super()._row(member, tag), "status": "pending"}


class SubscribesNewPeople(Mailchimp):
    def _row(self, member: Member, tag: str) -> dict[str, Any]:
        return {**super()._row(member, tag), "status_if_new": "subscribed"}


class LeavesWhoSaidNoUnderTheTag(Mailchimp):
    def _take_off(self, audience: str, segment: str, addresses: Sequence[str]) -> dict[str, str]:
        return {}


class LogsAPerson(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        log.debug("adding %s", [member.identifiers["email"][0] for member in batch])
        return super().add(list_id, batch)


class LogsAHash(GoogleAds):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        log.debug("adding", extra={"members": [member.member_key for member in batch]})
        return super().add(list_id, batch)


class LogsASecret(GoogleAds):
    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        log.info("logging in with %s", dict(self.connection.extra))
        return super().ensure_audience(label, description, fields)


class PutsAPersonIntoAnError(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        try:
            return super().add(list_id, batch)
        except AudienceRejected as error:
            raise AudienceRejected(f"{error} (while sending {batch[0].member_key})") from None


class PutsAPersonIntoAReason(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        return [
            RowResult(result.status, f"{member.member_key}: {result.reason}")
            for member, result in zip(batch, super().add(list_id, batch), strict=True)
        ]


class MakesAListEveryTime(GoogleAds):
    def _find(self, label: str) -> Any:
        return None

    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        return super().ensure_audience(f"{label} {id(self)}", description, fields)


class TakesAListThatIsNotThere(Mailchimp):
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        try:
            return super().add(list_id, batch)
        except AudienceRejected:
            return [RowResult("rejected", "no list") for _ in batch]


class TakesAGoneListForRefused(Mailchimp):
    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        try:
            return super().remove(list_id, batch)
        except AudienceRejected as error:
            raise AudienceRejected(str(error)) from None


class AnswersOncePerPerson(Mailchimp):
    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        return super().remove(list_id, list({member.member_key: member for member in batch}.values()))


class ReadsBackAsWritten(Mailchimp):
    def read_back(self, list_id: str) -> Iterator[str]:
        yield from (address.upper() for address in super().read_back(list_id))


class HearsNoOptOuts(Mailchimp):
    def read_opt_outs(self, since: datetime | None, said_no: Collection[str] | None = None) -> Iterator[OptOut]:
        yield from ()


class ReadsBackAPage(Mailchimp):
    def read_back(self, list_id: str) -> Iterator[str]:
        yield from list(super().read_back(list_id))[:2]


class ErasesNobody(Mailchimp):
    def erase(self, identifiers: Mapping[str, Sequence[str]]) -> None:
        pass


class ChecksByWriting(Mailchimp):
    def check(self) -> None:
        super().check()
        self.ensure_audience("A test", "", [])


class HasNoWords(Mailchimp):
    description = "a tag"


BROKEN: list[tuple[type[Destination], Check, dict[str, Any]]] = [
    (UnsubscribesLeavers, contract.test_leavers_go_and_are_not_unsubscribed, {}),
    (ArchivesLeavers, contract.test_leavers_go_and_are_not_unsubscribed, {}),
    (KeepsLeavers, contract.test_leavers_go_and_are_not_unsubscribed, {}),
    (KeepsLeavers, contract.test_removing_again_is_harmless, {}),
    (CountsRefusedAsAccepted, contract.test_one_bad_row_does_not_fail_the_batch, {}),
    (CountsRefusedAsAccepted, contract.test_who_said_no_stays_that_way, {}),
    (OneBadRowFailsTheBatch, contract.test_one_bad_row_does_not_fail_the_batch, {}),
    (AnswersInAnotherOrder, contract.test_there_is_one_answer_per_row_in_order, {"place": 0}),
    (SaysNothingOfARow, contract.test_there_is_one_answer_per_row_in_order, {"place": 0}),
    (SendsOneByOne, contract.test_batches_end_where_the_platform_says, {"rows": 4, "calls": 1}),
    (CallsForNobody, contract.test_nothing_to_send_is_no_call, {}),
    (TriesAWrongCredentialAgain, contract.test_a_wrong_credential_is_final, {}),
    (DoesNotWaitAsTold, contract.test_too_fast_is_waited_for_as_long_as_told, {}),
    (GivesUpAtACutConnection, contract.test_an_outage_is_for_later_and_the_next_push_goes_on, {}),
    (ARepeatIsAnError, contract.test_adding_again_changes_nothing, {}),
    (RaisesConsentOfAll, contract.test_who_said_no_stays_that_way, {}),
    (RaisesConsentOfAll, contract.test_no_request_says_more_of_consent_than_it_may, {}),
    (SubscribesNewPeople, contract.test_no_request_says_more_of_consent_than_it_may, {}),
    (LeavesWhoSaidNoUnderTheTag, contract.test_who_said_no_stays_that_way, {}),
    (LogsAPerson, contract.test_no_log_no_error_and_no_ledger_reason_holds_a_person_or_a_secret, {}),
    (LogsAHash, contract.test_no_log_no_error_and_no_ledger_reason_holds_a_person_or_a_secret, {}),
    (LogsASecret, contract.test_no_log_no_error_and_no_ledger_reason_holds_a_person_or_a_secret, {}),
    (PutsAPersonIntoAnError, contract.test_no_log_no_error_and_no_ledger_reason_holds_a_person_or_a_secret, {}),
    (PutsAPersonIntoAReason, contract.test_no_log_no_error_and_no_ledger_reason_holds_a_person_or_a_secret, {}),
    (MakesAListEveryTime, contract.test_a_list_is_made_once, {}),
    (TakesAListThatIsNotThere, contract.test_a_list_that_is_not_there_is_an_error_that_says_so, {}),
    (
        TakesAGoneListForRefused,
        contract.test_a_list_deleted_between_plan_and_push_is_not_filled_from_the_middle,
        {},
    ),
    (AnswersOncePerPerson, contract.test_a_person_who_is_in_a_batch_twice_has_two_answers, {}),
    (ReadsBackAsWritten, contract.test_who_is_known_in_capitals_is_the_same_person, {}),
    (DoesNotWaitAsTold, contract.test_too_fast_is_waited_for_until_the_time_told, {}),
    (HearsNoOptOuts, contract.test_who_said_no_at_the_tool_is_read_there, {}),
    (ReadsBackAPage, contract.test_the_list_can_be_read_back, {}),
    (ErasesNobody, contract.test_who_is_erased_is_gone_and_stays_away, {}),
    (ChecksByWriting, contract.test_the_login_is_checked_without_a_write, {}),
    (HasNoWords, contract.test_it_says_what_it_is, {}),
]


@pytest.mark.parametrize(
    ("broken", "check", "more"), [pytest.param(*row, id=f"{row[0].__name__}-{row[1].__name__}") for row in BROKEN]
)
def test_a_broken_destination_is_noticed(
    broken: type[Destination],
    check: Check,
    more: dict[str, Any],
    served: RunningSandbox,
    tmp_path: Path,
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = check.__code__.co_varnames[: check.__code__.co_argcount]
    given: dict[str, Any] = {"waits": waits, "caplog": caplog, **more}
    with contract_target(broken.name, served, tmp_path, broken) as target:
        given["target"] = target
        with pytest.raises((AssertionError, pytest.fail.Exception, AudienceRejected)):
            check(**{name: given[name] for name in wanted})


def test_every_promise_has_been_broken_once() -> None:
    promises = {
        name for name, value in vars(contract).items() if name.startswith("test_") and "target" in _names(value)
    }
    broken = {check.__name__ for _, check, _ in BROKEN}
    # Broken nowhere: they need no more than the base and the push do for every destination.
    assert promises - broken == {
        "test_a_cut_connection_is_tried_again_and_ends_in_the_same_place",
        "test_a_dry_run_is_no_call_and_what_it_planned_is_what_is_sent",
        "test_a_second_push_of_the_same_plan_is_no_call",
        "test_what_it_cannot_do_it_says_in_a_sentence",
    }


def _names(check: Check) -> tuple[str, ...]:
    return check.__code__.co_varnames


def test_a_destination_without_a_side_fails_and_is_told_what_to_write(served: RunningSandbox) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"write tests/include/destinations/sides/acme_mail\.py"):
        side_of("acme_mail", served)
