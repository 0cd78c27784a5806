"""The page: the lists as a marketer would see them in the tools, the journal, the automations. HTML without scripts."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader

from include.sandbox.datamanager import DataManager
from include.sandbox.store import Store
from include.sandbox.wire import Answer, Call, epoch

PAGE_ROWS = 50
STATUS_WORDS = {
    "subscribed": "good",
    "pending": "wait",
    "transactional": "wait",
    "unsubscribed": "bad",
    "cleaned": "bad",
    "archived": "dim",
}


class Page:
    """Everything below `/`."""

    def __init__(self, store: Store, datamanager: DataManager) -> None:
        self.store = store
        self.datamanager = datamanager
        self.environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True
        )
        self.environment.filters["number"] = lambda value: f"{value:,}".replace(",", " ")  # a narrow space
        self.environment.filters["moment"] = _moment
        self.routes: tuple[tuple[str, Callable[..., str | None]], ...] = (
            (r"/", self.overview),
            (r"/view/mailchimp/lists/(?P<list_id>[^/]+)", self.mailchimp_list),
            (r"/view/mailchimp/tags/(?P<segment_id>\d+)", self.mailchimp_tag),
            (r"/view/google/lists/(?P<list_id>\d+)", self.google_list),
            (r"/journal", self.journal),
            (r"/journal/(?P<number>\d+)", self.request),
            (r"/automations", self.automations),
        )

    def answer(self, call: Call) -> Answer:
        """One page; 404 for what is not there."""
        if call.method not in ("GET", "HEAD"):
            return Answer(405, "Only GET here.", media_type="text/plain; charset=utf-8")
        for pattern, view in self.routes:
            match = re.fullmatch(pattern, call.path)
            if match is not None:
                html = view(call, **match.groupdict())
                if html is not None:
                    return _html(200, html)
        return _html(404, self._render("missing.html", call, title="Not here"))

    def _render(self, template: str, call: Call, **values: Any) -> str:
        refresh = call.params.get("refresh", "")
        return self.environment.get_template(template).render(
            refresh=refresh if refresh.isdigit() and int(refresh) > 0 else "",
            params=call.params,
            now=call.now,
            status_words=STATUS_WORDS,
            **values,
        )

    def overview(self, call: Call) -> str:
        """Platforms and all lists with size, match rate and last change."""
        self.datamanager.process_due(call.now)
        hubspot = {row["type"]: row["n"] for row in self.store.all(
            "select type, count(*) as n from hubspot_objects where not archived group by type")}  # fmt: skip
        mailchimp_lists = []
        for one in self.store.all("select * from mailchimp_lists order by name"):
            counts = {
                row["status"]: row["n"]
                for row in self.store.all(
                    "select status, count(*) as n from mailchimp_members where list_id = ? and not is_forgotten "
                    "group by status order by n desc",
                    one["id"],
                )
            }
            tags = self.store.all(
                "select s.*, count(m.hash) as members, coalesce(sum(m.status = 'subscribed'), 0) as active "
                "from mailchimp_segments as s left join mailchimp_segment_members as t on t.segment_id = s.id "
                "left join mailchimp_members as m on m.list_id = t.list_id and m.hash = t.hash "
                "where s.list_id = ? group by s.id order by s.name",
                one["id"],
            )
            mailchimp_lists.append({"row": one, "counts": counts, "tags": tags})
        google_lists = [
            {"row": row, **self.datamanager.summary(row["id"], call.now)}
            for row in self.store.all("select * from datamanager_lists order by display_name")
        ]
        facts = {
            "email_events": self.store.value("select count(*) from hubspot_events"),
            "pending": self.store.value("select count(*) from datamanager_requests where processed_at is null"),
            "requests": self.store.value("select count(*) from journal"),
            "writes": self.store.value("select count(*) from journal where is_write"),
            "refused": self.store.value("select count(*) from journal where status >= 400"),
            "automations": self.store.value("select count(*) from automations"),
        }
        return self._render(
            "overview.html",
            call,
            title="Lists",
            hubspot=hubspot,
            mailchimp_lists=mailchimp_lists,
            google_lists=google_lists,
            facts=facts,
        )

    def mailchimp_list(self, call: Call, list_id: str) -> str | None:
        """The members of an audience."""
        row = self.store.one("select * from mailchimp_lists where id = ?", list_id)
        if row is None:
            return None
        return self._mailchimp(
            call,
            "from mailchimp_members as m where m.list_id = ? and not m.is_forgotten",
            [list_id],
            title=row["name"],
            kind="Mailchimp audience",
            list_id=list_id,
            facts=[],
            own_tag=None,
            tags_label="Tags",
        )

    def mailchimp_tag(self, call: Call, segment_id: str) -> str | None:
        """The members of a tag."""
        row = self.store.one(
            "select s.*, l.name as list_name from mailchimp_segments as s inner join mailchimp_lists as l "
            "on l.id = s.list_id where s.id = ?",
            int(segment_id),
        )
        if row is None:
            return None
        return self._mailchimp(
            call,
            "from mailchimp_segment_members as t inner join mailchimp_members as m "
            "on m.list_id = t.list_id and m.hash = t.hash where t.segment_id = ?",
            [int(segment_id)],
            title=row["name"],
            kind="Mailchimp tag",
            list_id=row["list_id"],
            own_tag=row["name"],
            tags_label="Other tags",
            facts=[("Audience", row["list_name"]), ("Last change", _moment(row["updated_at"]))],
        )

    def _mailchimp(
        self, call: Call, base: str, values: list[Any], *, list_id: str, own_tag: str | None, **shown: Any
    ) -> str:
        counts = self.store.all(f"select m.status, count(*) as n {base} group by m.status order by n desc", *values)
        status, query = call.params.get("status", ""), call.params.get("q", "").strip()
        if status:
            base += " and m.status = ?"
            values.append(status)
        if query:
            base += " and (instr(lower(m.email), ?) or instr(lower(cast(m.merge_fields as text)), ?))"
            values += [query.lower(), query.lower()]
        total = self.store.value(f"select count(*) {base}", *values)
        page = _page(call, total)
        rows = self.store.all(
            f"select m.* {base} order by m.last_changed desc, m.email limit ? offset ?",
            *values, PAGE_ROWS, (page["number"] - 1) * PAGE_ROWS,
        )  # fmt: skip
        known = self.store.all("select tag from mailchimp_merge_fields where list_id = ? order by merge_id", list_id)
        members = [{"row": row, "merge": orjson.loads(row["merge_fields"])} for row in rows]
        fields = [
            one["tag"] for one in known if any(member["merge"].get(one["tag"]) not in (None, "") for member in members)
        ]
        tags: dict[str, list[str]] = {}
        marks = ", ".join("?" * len(rows))
        for tag in self.store.all(
            "select t.hash, s.name from mailchimp_segment_members as t inner join mailchimp_segments as s "
            f"on s.id = t.segment_id where t.list_id = ? and t.hash in ({marks}) order by s.name",
            list_id, *(row["hash"] for row in rows),
        ):  # fmt: skip
            if tag["name"] != own_tag:
                tags.setdefault(tag["hash"], []).append(tag["name"])
        return self._render(
            "members.html",
            call,
            members=members,
            fields=fields,
            tags=tags,
            show_tags=bool(tags),
            counts=counts,
            total=total,
            page=page,
            query=query,
            status=status,
            **shown,
        )

    def google_list(self, call: Call, list_id: str) -> str | None:
        """A Customer Match list: hashes only, as that is all Google was given."""
        self.datamanager.process_due(call.now)
        row = self.store.one("select * from datamanager_lists where id = ?", int(list_id))
        if row is None:
            return None
        summary = self.datamanager.summary(row["id"], call.now)
        base, values = "from datamanager_members where list_id = ?", [row["id"]]
        query = call.params.get("q", "").strip()
        if query:
            base += " and instr(value, ?)"
            values.append(query.lower())
        total = self.store.value(f"select count(*) {base}", *values)
        page = _page(call, total)
        rows = self.store.all(
            f"select * {base} order by added_at desc, kind, value limit ? offset ?",
            *values, PAGE_ROWS, (page["number"] - 1) * PAGE_ROWS,
        )  # fmt: skip
        return self._render(
            "google.html",
            call,
            title=row["display_name"],
            row=row,
            body=orjson.loads(row["body"]),
            summary=summary,
            rows=rows,
            total=total,
            page=page,
            query=query,
        )

    def journal(self, call: Call) -> str:
        """All requests, newest first."""
        conditions, values = ["true"], []
        platform = call.params.get("platform", "")
        if platform:
            conditions.append("platform = ?")
            values.append(platform)
        only = call.params.get("only", "")
        if only == "writes":
            conditions.append("is_write")
        elif only == "refused":
            conditions.append("(status >= 400 or fault is not null)")
        query = call.params.get("q", "").strip()
        if query:
            conditions.append("instr(path, ?)")
            values.append(query)
        where = " and ".join(conditions)
        total = self.store.value(f"select count(*) from journal where {where}", *values)
        page = _page(call, total)
        rows = self.store.all(
            f"select * from journal where {where} order by id desc limit ? offset ?",
            *values, PAGE_ROWS, (page["number"] - 1) * PAGE_ROWS,
        )  # fmt: skip
        return self._render(
            "journal.html",
            call,
            title="Journal",
            rows=rows,
            total=total,
            page=page,
            platform=platform,
            only=only,
            query=query,
        )

    def request(self, call: Call, number: str) -> str | None:
        """One request with its body."""
        row = self.store.one("select * from journal where id = ?", int(number))
        if row is None:
            return None
        text = row["body"] or ""
        try:
            text = orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode() if text else ""
        except orjson.JSONDecodeError:
            text = row["body"]
        return self._render("request.html", call, title=f"Request {number}", row=row, text=text)

    def automations(self, call: Call) -> str:
        """What fired because a tag was added."""
        query = call.params.get("q", "").strip().lower()
        where = "instr(lower(email || ' ' || tag), ?)"
        total = self.store.value(f"select count(*) from automations where {where}", query)
        page = _page(call, total)
        rows = self.store.all(
            f"select * from automations where {where} order by id desc limit ? offset ?",
            query, PAGE_ROWS, (page["number"] - 1) * PAGE_ROWS,
        )  # fmt: skip
        return self._render(
            "automations.html", call, title="Automations", rows=rows, total=total, page=page, query=query
        )


def _html(status: int, text: str) -> Answer:
    return Answer(
        status,
        text,
        {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"},
        "text/html; charset=utf-8",
    )


def _page(call: Call, total: int) -> dict[str, int]:
    last = max(-(-total // PAGE_ROWS), 1)
    text = call.params.get("page", "1")
    number = min(max(int(text), 1), last) if text.isdigit() else 1
    return {"number": number, "last": last}


def _moment(value: object) -> str:
    """A time as people read it, in UTC."""
    if value in (None, ""):
        return ""
    try:
        seconds = float(value) if isinstance(value, int | float) else epoch(str(value))
    except ValueError:
        return str(value)
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M:%S")
