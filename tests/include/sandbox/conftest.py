"""A sandbox in memory with a clock the test moves, and one signed-in client per platform."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from include.sandbox.datamanager import DataManagerConfig
from include.sandbox.hubspot import HubSpotConfig
from include.sandbox.mailchimp import MailchimpConfig
from include.sandbox.server import Sandbox, SandboxConfig

LIST = "a1b2c3d4e5"
MAILCHIMP_KEY = "0123456789abcdef0123456789abcdef-us6"


class Clock:
    """Epoch seconds that only move when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 10, 0, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


class InProcess(httpx.BaseTransport):
    """Hands requests to the app without a socket."""

    def __init__(self, app: Sandbox) -> None:
        self.inner = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            response = await self.inner.handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return asyncio.run(ask())


class Client(httpx.Client):
    """A client of one sandbox in this process."""

    def __init__(self, app: Sandbox) -> None:
        self.app = app
        super().__init__(transport=InProcess(app), base_url="http://sandbox")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Callable[..., Client]]:
    """Make a sandbox and a client of it: `make(hubspot={...}, mailchimp={...}, datamanager={...}, **config)`."""
    apps: list[Sandbox] = []

    def build(
        hubspot: dict[str, Any] | None = None,
        mailchimp: dict[str, Any] | None = None,
        datamanager: dict[str, Any] | None = None,
        **config: Any,
    ) -> Client:
        app = Sandbox(
            SandboxConfig(
                hubspot=HubSpotConfig(**(hubspot or {})),
                mailchimp=MailchimpConfig(**(mailchimp or {})),
                datamanager=DataManagerConfig(**(datamanager or {})),
                **config,
            ),
            clock=clock,
        )
        apps.append(app)
        return Client(app)

    yield build
    for app in apps:
        app.close()


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()


class Platform:
    """One platform's client: paths are below its prefix, credentials are added."""

    def __init__(self, client: Client, prefix: str, headers: dict[str, str]) -> None:
        self.client, self.prefix, self.headers = client, prefix, headers

    def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> Any:
        headers = {**self.headers, **more.pop("headers", {})}
        return self.client.request(method, self.prefix + path, json=json, headers=headers, **more)

    def get(self, path: str, **params: Any) -> Any:
        return self("GET", path, params=params)

    def post(self, path: str, json: Any, **more: Any) -> Any:
        return self("POST", path, json, **more)


@pytest.fixture
def hubspot_of() -> Callable[[Client], Platform]:
    return lambda client: Platform(client, "/hubspot", {"Authorization": "Bearer pat-na1-sandbox"})


@pytest.fixture
def mailchimp_of() -> Callable[[Client], Platform]:
    def build(client: Client) -> Platform:
        made = client.post("/_sandbox/mailchimp", json={"lists": [{"id": LIST, "name": "Newsletter"}]})
        assert made.status_code == 200
        return Platform(client, "/mailchimp/3.0", {"Authorization": f"Bearer {MAILCHIMP_KEY}"})

    return build


@pytest.fixture
def google_of() -> Callable[[Client], Platform]:
    def build(client: Client) -> Platform:
        form = {"grant_type": "refresh_token", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
        token = client.post("/datamanager/token", data=form).json()["access_token"]
        return Platform(client, "/datamanager/v1", {"Authorization": f"Bearer {token}"})

    return build


@pytest.fixture
def hubspot(client: Client, hubspot_of: Callable[[Client], Platform]) -> Platform:
    return hubspot_of(client)


@pytest.fixture
def mailchimp(client: Client, mailchimp_of: Callable[[Client], Platform]) -> Platform:
    return mailchimp_of(client)


@pytest.fixture
def google(client: Client, google_of: Callable[[Client], Platform]) -> Platform:
    return google_of(client)
