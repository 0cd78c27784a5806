"""A destination as somebody fills it in: what takes the place of what `make new-destination` wrote.

The platform is a dictionary of lists that answers per person. Each pair is a text of the templates and its replacement;
where a text is not in the templates any more, filling in fails.
"""

from __future__ import annotations

import re
from pathlib import Path

DESTINATION = [
    ('description = ""  # to fill in: one sentence that ends in a full stop', 'description = "A list of addresses."'),
    ('channel = "email"  # to fill in: email or ads', 'channel = "email"'),
    ('api_version = ""  # to fill in', 'api_version = "1"'),
    ('docs_url = ""  # to fill in: https://...', 'docs_url = "https://mail.example/docs"'),
    (
        'identifiers = ("email",)  # to fill in: the kinds it takes, in order of preference (include/identity/sql.py)',
        'identifiers = ("email",)',
    ),
    ("max_batch_rows = 1  # to fill in: rows that one call takes", "max_batch_rows = 100"),
    (
        'raise NotImplementedError("to fill in: filled_mail.check, only reads and needs the key")',
        'self._good(self.api.call("GET", "/lists", "see the lists"), "see the lists")',
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail.ensure_audience, find or make the list")',
        """ids = self._ids()
        if label not in ids:
            self.api.call("POST", "/lists", "make a list", json={"label": label})  # refused where it is there already
            ids = self._ids()
        return ids[label]""",
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail.add, one result per row, in order")',
        'return self._change("add", list_id, batch)',
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail.remove, never an unsubscribe")',
        'return self._change("remove", list_id, batch)',
    ),
    (
        "    # to fill in, where the platform has them: outcome, read_opt_outs, read_back, stats, erase\n",
        '''    def read_opt_outs(
        self, since: datetime | None, said_no: Collection[str] | None = None
    ) -> Iterator[OptOut]:
        for address in self._good(self.api.call("GET", "/people", "read opt-outs"), "read opt-outs")["unsubscribed"]:
            yield OptOut("email", address, "email", "opted_out", True, None)

    def read_back(self, list_id: str) -> Iterator[str]:
        answer = self.api.call("GET", f"/lists/{list_id}/members", "read the list back")
        yield from self._good(answer, "read the list back")["members"]

    def erase(self, identifiers: Mapping[str, Sequence[str]]) -> None:
        body = {"addresses": list(identifiers.get("email", ()))}
        self._good(self.api.call("POST", "/people/erase", "erase a person", json=body), "erase a person")

    def _ids(self) -> dict[str, str]:
        """The lists by label."""
        found: dict[str, str] = self._good(self.api.call("GET", "/lists", "see the lists"), "see the lists")
        return found

    def _change(self, verb: str, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        if not batch:
            return []
        what = f"{verb} {len(batch)} people"
        body = {verb: [member.identifiers["email"][0] for member in batch]}
        told = self._good(self.api.call("POST", f"/lists/{list_id}/members", what, json=body), what)["answers"]
        return [RowResult("accepted") if one == "ok" else RowResult("rejected", one) for one in told]

    def _good(self, answer: Answer, what: str) -> Any:
        if answer.status == 404:
            raise ListGone(f"{self.label} cannot {what}: the list is not there any more")
        if not answer.ok:
            raise BatchRefused(f"{self.label} refuses to {what}: {answer.problem()}")
        return answer.data
''',
    ),
    (
        "import Sequence\nfrom typing import ClassVar",
        "import Collection, Iterator, Mapping, Sequence\nfrom datetime import datetime\n"
        "from typing import Any, ClassVar",
    ),
    ("DestinationSettings, Member, RowResult", "DestinationSettings, Member, OptOut, RowResult"),
    ("import HttpApi\n", "import Answer, HttpApi\nfrom include.errors import BatchRefused, ListGone\n"),
]

SANDBOX = [
    (
        "self.routes: tuple[Route, ...] = ()\n",
        """self.routes: tuple[Route, ...] = (
            Route("GET", "/lists", self.get_lists),
            Route("POST", "/lists", self.make_list),
            Route("GET", "/lists/{list_id}/members", self.get_members),
            Route("POST", "/lists/{list_id}/members", self.change_members),
            Route("GET", "/people", self.get_people),
            Route("POST", "/people/erase", self.erase),
        )

    def get_lists(self, call: Call) -> Answer:
        return Answer(body={row["label"]: str(row["id"]) for row in self.store.all("select * from filled_mail_lists")})

    def make_list(self, call: Call) -> Answer:
        label = json.loads(call.body)["label"]
        if self.store.value("select 1 from filled_mail_lists where label = ?", label):
            raise Refusal(Answer(409, {"message": "taken"}))
        self.store.run("insert into filled_mail_lists (label) values (?)", label)
        return Answer(201, {})

    def get_members(self, call: Call, list_id: str) -> Answer:
        self._list(list_id)
        return Answer(body={"members": [row["address"] for row in self.store.all(MEMBERS, list_id)]})

    def change_members(self, call: Call, list_id: str) -> Answer:
        self._list(list_id)
        body, answers = json.loads(call.body), []
        for address in body.get("add", []):
            status = self.store.value("select status from filled_mail_people where address = ?", address)
            if status or not address.partition("@")[2]:
                answers.append(status or "invalid address")
                continue
            self.store.run("insert or ignore into filled_mail_members values (?, ?)", list_id, address)
            answers.append("ok")
        for address in body.get("remove", []):
            self.store.run("delete from filled_mail_members where list_id = ? and address = ?", list_id, address)
            answers.append("ok")
        call.rows = len(answers)
        return Answer(body={"answers": answers})

    def get_people(self, call: Call) -> Answer:
        found = self.store.all("select address from filled_mail_people where status = 'unsubscribed'")
        return Answer(body={"unsubscribed": [row["address"] for row in found]})

    def erase(self, call: Call) -> Answer:
        for address in json.loads(call.body)["addresses"]:
            self.store.run(ADD_PERSON, address, "erased")
            self.store.run("delete from filled_mail_members where address = ?", address)
        return Answer(body={})

    def _list(self, list_id: str) -> None:
        if not self.store.value("select 1 from filled_mail_lists where id = ?", list_id):
            raise Refusal(Answer(404, {"message": "no such list"}))
""",
    ),
    ("from typing import Any\n", "import json\nfrom typing import Any\n"),
]

SIDE = [
    (
        'raise NotImplementedError("to fill in: filled_mail people, the same every time")',
        'return [person(f"person{number}@shop.example") for number in range(count)]',
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail bad_person, refused for itself")',
        'return person("bad.row@")',
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail say_no, one for each way; or []")',
        """people = [{"address": "left@shop.example", "status": "unsubscribed"}]
        self.sandbox.control("filled_mail", {"people": people})
        return [person("left@shop.example")]""",
    ),
    ('raise NotImplementedError("to fill in: filled_mail remember_in_capitals; or nothing")', "pass"),
    (
        'raise NotImplementedError("to fill in: filled_mail lose_list, deleted at the tool")',
        'self.sandbox.app.store.run("delete from filled_mail_lists where label = ?", label)',
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail statuses, everybody\'s consent; or {}")',
        """rows = self.sandbox.app.store.all("select address, status from filled_mail_people")
        return {row["address"]: row["status"] for row in rows}""",
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail is_list_write, adds or removes people")',
        'return entry.is_write and entry.path.endswith("/members")',
    ),
    (
        'raise NotImplementedError("to fill in: filled_mail write_route, adds people")',
        r'return r"^POST /lists/\d+/members$"',
    ),
    (
        "def _answer(",
        'def person(address: str) -> Member:\n    return Member(address, {"email": [address]}, {})\n\n\ndef _answer(',
    ),
]

PARTS = {
    "include/destinations/filled_mail.py": DESTINATION,
    "include/sandbox/filled_mail.py": SANDBOX,
    "tests/include/destinations/sides/filled_mail.py": SIDE,
}


def fill_in(root: Path) -> None:
    """Fill in what `new_destination("filled_mail", root)` wrote."""
    for path, pairs in PARTS.items():
        text = (root / path).read_text(encoding="utf-8")
        for old, new in pairs:
            assert old in text, f"{path} has no {old!r}"
            text = text.replace(old, new, 1)
        assert not re.search(r"NotImplementedError", text), path
        (root / path).write_text(text, encoding="utf-8")
