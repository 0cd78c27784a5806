"""What an audience file may say: the schema behind `include/audiences/definitions/*.yaml`.

The models here check one value at a time. What needs a second look elsewhere (the segment's SQL, the destination's
own options, the other files) is checked in `include/audiences/load.py`, which also knows the line of everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from include.audiences.durations import looks_like_duration, parse_duration, parse_share
from include.audiences.wording import did_you_mean
from include.errors import ConfigurationError

Channel = Literal["email", "ads"]
ParamValue = timedelta | bool | int | float | str | list[bool | int | float | str]

ALWAYS_SUPPRESSED = ("opted_out", "bounced", "complained", "competitors", "erased")
RECENT_PURCHASERS = "recent_purchasers"
_EXAMPLES = {
    "params": "{window: 7d}",
    "stages": "{reminder: 1h, nudge: 24h}",
    "channels": "{email: {consent: email}}",
}
TARGET_KEYS = ("to", "fields", "anonymous", "connection")


def _one_line(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    if any(ord(character) < 32 for character in value.strip()):
        raise ValueError("must be one line of text")
    return value.strip()


def _longer_than_nothing(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than nothing")
    return value


def _up_to_all(value: float) -> float:
    if value > 1:
        raise ValueError("is more than 100%")
    return value


def _mapping(value: object, how: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be names with values, such as {how}")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"has the key {key!r}, which YAML does not read as text; put it in quotes")
    return value


def _param(value: object) -> ParamValue:
    if value is None:
        raise ValueError("has no value")
    if isinstance(value, str):
        return parse_duration(value) if looks_like_duration(value) else value
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, bool | int | float | str):
                raise ValueError(f"a list may hold numbers, texts and true or false, and has {item!r}")
        return value
    if isinstance(value, timedelta | bool | int | float):
        return value
    raise ValueError(f"{value!r} is neither a length of time, a number, a text, true or false, nor a list")


def _problem_at(index: int, message: str) -> PydanticCustomError:
    """A problem with one entry of a list."""
    return PydanticCustomError("list_entry", "{message}", {"message": message, "item": index})


Text = Annotated[str, Field(strict=True), AfterValidator(_one_line)]
Name = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_]{0,49}$")]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Period = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_longer_than_nothing)]
Share = Annotated[float, BeforeValidator(parse_share)]
Percentage = Annotated[float, BeforeValidator(parse_share), AfterValidator(_up_to_all)]
Count = Annotated[int, Field(strict=True, ge=1)]
Size = Annotated[int, Field(strict=True, ge=0)]


class Strict(BaseModel):
    """Base of everything read from an audience file: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChannelPolicy(Strict):
    """Which consent a channel needs."""

    consent: Channel = Field(description="the consent that must be granted")
    unknown: Literal["deny", "allow"] = Field("deny", description="what a person who never answered counts as")


def _own_consent() -> dict[Channel, ChannelPolicy]:
    return {"email": ChannelPolicy(consent="email"), "ads": ChannelPolicy(consent="ads")}


class FrequencyCap(Strict):
    """So many touches in so much time keep a person from coming in."""

    touches: Count
    per: Period


class Guard(Strict):
    """Beyond these a human approves. Shares are of the list as it is; 50% is 0.5."""

    max_add: Share = Field(0.5, description="share of the list that may come in")
    max_remove: Share = Field(0.3, description="share of the list that may leave")
    max_shrink: Percentage = Field(0.5, description="share by which the segment may shrink between two plans")
    min_size: Size = Field(1, description="so many the segment has at least, once there is a list")
    small_change: Size = Field(50, description="a change of so many people or fewer is never asked about")
    approvers: list[Text] = Field(
        default_factory=list, description="Airflow user ids that may answer; none: all who may"
    )


class Target(Strict):
    """One destination of an audience, with what its file says to it."""

    to: Name = Field(description="the destination: a file name in include/destinations")
    fields: dict[Text, Text] = Field(default_factory=dict, description="merge field -> column of the segment")
    anonymous: StrictBool = Field(False, description="also send visitors nobody knows by name")
    options: dict[str, Any] = Field(default_factory=dict, description="everything else: the destination's settings")

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: object) -> object:
        if isinstance(data, str):
            raise ValueError(f"write it as {{to: {data}}}")
        known = _mapping(data, "{to: mailchimp}")
        own: dict[str, Any] = {key: known[key] for key in ("to", "fields", "anonymous") if key in known}
        own["options"] = {key: value for key, value in known.items() if key not in own}
        return own


class Audience(Strict):
    """A segment plus its policy plus its destinations: one YAML file, whose stem is `name`."""

    name: Name
    label: Text = Field(description="the name a marketer sees in every tool")
    description: Text = Field(description="who is in it, in one sentence")
    owner: Text = Field(description="who answers for it")
    segment: Name = Field(description="the file sql/segments/<segment>.sql")
    params: dict[Name, Annotated[ParamValue, PlainValidator(_param)]] = Field(default_factory=dict)
    stages: dict[Name, Duration] = Field(default_factory=dict, description="stage -> how long after; shortest first")
    channels: dict[Channel, ChannelPolicy] = Field(default_factory=_own_consent)
    suppress: dict[Name, timedelta | None] = Field(
        default_factory=dict, description="reason -> how long it holds; None where it holds until taken back"
    )
    frequency_cap: FrequencyCap | None = None
    holdout: Percentage = Field(0.0, description="share never sent; 5% is 0.05")
    exclusive: Name | None = Field(None, description="audiences of one group compete for a profile")
    priority: Annotated[int, Field(strict=True)] = Field(0, description="the largest number of a group wins")
    guard: Guard = Field(default_factory=Guard)
    strict: StrictBool = Field(False, description="take off its lists whoever somebody else has put there")
    destinations: list[Target] = Field(min_length=1)

    _path: str = PrivateAttr("")
    _lines: Mapping[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)

    @field_validator("params", "stages", "channels", mode="before")
    @classmethod
    def _check_names(cls, value: object, info: ValidationInfo) -> object:
        return _mapping(value, _EXAMPLES[str(info.field_name)])

    @field_validator("stages")
    @classmethod
    def _sort_stages(cls, value: dict[str, timedelta]) -> dict[str, timedelta]:
        if len(set(value.values())) < len(value):
            raise ValueError("two stages begin at the same time; one of them would stay empty")
        return dict(sorted(value.items(), key=lambda stage: stage[1]))

    @field_validator("suppress", mode="before")
    @classmethod
    def _read_suppress(cls, value: object) -> dict[str, timedelta | None]:
        if not isinstance(value, list):
            raise ValueError("must be a list, such as [opted_out, {recent_purchasers: 30d}]")
        found: dict[str, timedelta | None] = {}
        for index, entry in enumerate(value):
            try:
                name, length = _suppression(entry)
                if name in found:
                    raise ValueError(f"'{name}' is named twice")
            except ValueError as error:
                raise _problem_at(index, str(error)) from error
            found[name] = length
        return found

    @property
    def path(self) -> str:
        """The file this audience was read from."""
        return self._path

    def line(self, *location: str | int) -> int | None:
        """The line where `location` (keys and list positions from the top) stands, or what holds it."""
        while location and location not in self._lines:
            location = location[:-1]
        return self._lines.get(location)

    def target(self, destination: str) -> Target:
        """This audience at one destination; ConfigurationError where it does not go there."""
        for target in self.destinations:
            if target.to == destination:
                return target
        names = [target.to for target in self.destinations]
        raise ConfigurationError(
            f"audience {self.name} has no destination '{destination}'{did_you_mean(destination, names)}"
        )


def _suppression(entry: object) -> tuple[str, timedelta | None]:
    if isinstance(entry, str):
        if entry == RECENT_PURCHASERS:
            raise ValueError(f"'{entry}' needs its days, such as {{{entry}: 30d}}")
        return _suppression_name(entry), None
    if isinstance(entry, dict) and len(entry) == 1:
        name, length = next(iter(entry.items()))
        if name == RECENT_PURCHASERS:
            return name, _longer_than_nothing(parse_duration(length))
        if isinstance(name, str):
            hint = did_you_mean(name, [RECENT_PURCHASERS])
            raise ValueError(f"'{name}' takes no length of time; only {RECENT_PURCHASERS} does{hint}")
    raise ValueError(f"has {entry!r}; an entry is a name or {{{RECENT_PURCHASERS}: 30d}}")


def _suppression_name(name: str) -> str:
    """Any reason a source uses is welcome; one that is nearly a known word is a slip of the pen."""
    known = [*ALWAYS_SUPPRESSED, RECENT_PURCHASERS]
    own_word = any(name == word or name.startswith(f"{word}_") for word in known)
    hint = "" if own_word else did_you_mean(name, known, cutoff=0.8)
    if hint:
        raise ValueError(f"does not know '{name}'{hint}")
    return name
