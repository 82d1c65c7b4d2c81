"""`arena.toml`: which models meet in an arena, how often, and under which rules.

name = "Our arena"

[limits]
person_hour = 60

[[models]]                              # camelid's own engine: a name, a folder or a file
name = "smollm2"
model = "smollm2:135m-instruct"
organisation = "Hugging Face"
sampling = { temperature = 0.7, max_tokens = 500 }

[[models]]                              # any server that speaks OpenAI's API
name = "hosted"
url = "https://example.org/v1"
model = "its-name-there"
key_env = "EXAMPLE_KEY"
daily = 2000
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from camelid.arena.pairing import Rules
from camelid.engine.options import EngineOptions
from camelid.engine.request import SamplingParams
from camelid.errors import FormatError, MissingError, OptionError, one_of
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.options import Options
from camelid.parsing import MAX_TOML, parse_toml

_OURS = ("model", "messages", "stream", "stream_options", "seed", "n")  # of a request; the arena says them itself
Kind = TypeVar("Kind", bound=Options)


class ArenaModel(Options):
    """A model that can be met: `[[models]]`."""

    name: str = Field(min_length=1, max_length=200, description="In votes and on the board.")
    model: str = Field("", description="Name, folder or file for camelid's engine; with url, its name there.")
    url: str = Field("", description="Of a server that speaks OpenAI's API, up to and with /v1.")
    key_env: str = Field("", description="Environment variable that holds the server's key.")
    answers_as: tuple[str, ...] = Field((), description="Patterns of further names that the server may answer under.")
    organisation: str = ""
    licence: str = ""
    cutoff: str = Field("", description="Until when its documents go, as 2023-12.")
    link: str = ""
    description: str = ""
    parameters: float | None = Field(None, gt=0, description="In billions.")
    results: str = Field("", description="The name that results of camelid eval have for it, if another one.")
    run: str = Field("", description="The training run that made it, as tiny/pretrain.")
    words: tuple[str, ...] = Field((), description="Further words by which an answer would name its maker.")
    weight: float = Field(1.0, ge=0, description="Sampling weight; 0: only side by side.")
    boosted: bool = Field(False, description="Drawn five times as often as the first.")
    outage: bool = Field(False, description="Not drawn for now.")
    targets: tuple[str, ...] = Field((), description="Rivals that share half of the weight.")
    strict: tuple[str, ...] = Field((), description="Patterns; it meets only models that match one.")
    sampling: dict[str, Any] = Field({}, description="Recommended sampling.")
    hourly: int = Field(0, ge=0, description="Most answers in an hour; 0: no limit.")
    daily: int = Field(0, ge=0, description="Most answers in a day; 0: no limit.")
    chat_format: str | None = Field(None, description="For models without a template of their own.")
    backend: str = "auto"

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.netloc or parts.username or parts.password):
            raise ValueError("wants http://HOST/v1 or https://HOST/v1, and no key in it")
        return url.rstrip("/")

    @field_validator("link")
    @classmethod
    def _link(cls, link: str) -> str:
        if link and not link.startswith(("http://", "https://")):
            raise ValueError("wants an address that begins with https:// or http://")
        return link

    @property
    def is_endpoint(self) -> bool:
        """Whether another server answers."""
        return bool(self.url)

    @property
    def source(self) -> str:
        """What `model` says, or the name."""
        return self.model or self.name

    def key(self) -> str | None:
        """The server's key.

        Raises:
            MissingError: the environment has no such variable.
        """
        if not self.key_env:
            return None
        if not (key := os.environ.get(self.key_env)):
            raise MissingError(f"{self.name}: set the environment variable {self.key_env} to the key of {self.url}")
        return key

    def public(self) -> dict[str, str]:
        """What people are told of it, once they may know."""
        names = ("name", "organisation", "licence", "cutoff", "link", "description")
        return {name: getattr(self, name) for name in names}


class LimitOptions(Options):
    """Limits: `[limits]`; 0: none"""

    question: int = Field(30_000, ge=1, description="Characters of a question in a battle, as FastChat has it.")
    question_side_by_side: int = Field(12_000, ge=1, description="Characters of a question side by side.")
    turns: int = Field(50, ge=1, description="Questions of one conversation.")
    person_hour: int = Field(120, ge=0, description="Questions of a person in an hour.")
    person_day: int = Field(600, ge=0, description="Questions of a person in a day.")
    address_hour: int = Field(1_200, ge=0, description="Questions from one address in an hour; a class shares one.")
    address_day: int = Field(6_000, ge=0, description="Questions from one address in a day.")
    at_once: int = Field(3, ge=0, description="Questions of a person that are being answered at the same time.")
    answer: int = Field(100_000, ge=1, description="Characters of an answer; a longer one has failed.")
    tokens: int = Field(2_000, ge=1, description="Of an answer, where a model's sampling says no max_tokens.")
    first_seconds: float = Field(60, gt=0, description="Until an answer begins.")
    silent_seconds: float = Field(30, gt=0, description="Between two pieces of an answer.")
    seconds: float = Field(300, gt=0, description="Of a whole answer.")


class PaceOptions(Options):
    """The common pace: `[pace]`; choose it so that the slowest model keeps up"""

    tick: float = Field(0.2, ge=0.01, le=5, description="Seconds from one piece to the next.")
    characters: int = Field(16, ge=1, description="Of each side in a tick.")
    start: float = Field(2.0, ge=0, le=60, description="Seconds from the question to the first piece.")
    hold: float = Field(2.0, gt=0, le=60, description="Seconds of the first wait for a model that is behind.")


class ArenaConfig(Options):
    """An arena: everything outside of tables"""

    name: str = "Arena"
    admin_key_env: str = Field("CAMELID_ARENA_KEY", description="Variable with the key of /arena/admin.")
    secret_env: str = Field("CAMELID_ARENA_SECRET", description="Variable with the signing key; else the database's.")
    proxies: int = Field(0, ge=0, le=8, description="Proxies before the server that write X-Forwarded-For.")
    log: Path | None = Field(None, description="Folder for a log in FastChat's form, YYYY-MM-DD-conv.json.")
    moderation: str = Field("", description="package.module:function that says whether a text may pass.")
    active: float = Field(0.0, ge=0, le=1, description="Share of pairs drawn where a vote tells most.")
    apart: tuple[tuple[str, str], ...] = Field((), description="Two models that never meet.")
    notice: tuple[str, ...] = Field((), description="What people read on entry, instead of the usual sentences.")
    limits: LimitOptions = LimitOptions()
    pace: PaceOptions = PaceOptions()
    engine: EngineOptions = EngineOptions()
    models: tuple[ArenaModel, ...] = ()

    def by_name(self) -> Mapping[str, ArenaModel]:
        """The models."""
        return {model.name: model for model in self.models}

    def rules(self, out: frozenset[str] = frozenset()) -> Rules:
        """How pairs are drawn, without the models named in `out`."""
        return Rules(
            weights={model.name: model.weight for model in self.models},
            boosted=[model.name for model in self.models if model.boosted],
            outage={model.name for model in self.models if model.outage} | out,
            targets={model.name: model.targets for model in self.models if model.targets},
            strict={model.name: model.strict for model in self.models if model.strict},
            apart=self.apart,
        )

    def checked(self) -> Self:
        """Itself.

        Raises:
            OptionError: no models; two of one name; a rival or pair that is not here; sampling that cannot be.
        """
        names = [model.name for model in self.models]
        if not names:
            raise OptionError("models: there are none; add a table [[models]] for each", param="models")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise OptionError(f"models: two are called {twice}; give one another name", param="models")
        rivals = [(model.name, rival) for model in self.models for rival in model.targets]
        for owner, name in [*rivals, *(("apart", name) for pair in self.apart for name in pair)]:
            if name not in names:
                raise OptionError(f"{owner}: {name!r} is no model here; {one_of(name, names)}", param="models")
        for model in self.models:
            _check_sampling(model)
        return self


def first_config() -> ArenaConfig:
    """An arena to begin with: the default model, cautious against lively."""
    of_both = {"model": DEFAULT_MODEL, "organisation": "Hugging Face", "licence": "Apache-2.0", "parameters": 0.135}
    lines = {"cautious": (0.2, "the likeliest words"), "lively": (1.0, "words as likely as they are")}
    models = (
        ArenaModel(
            name=f"SmolLM2 135M, {name}",
            description=f"Temperature {temperature:g}: {what}.",
            sampling={"temperature": temperature, "max_tokens": 300},
            **of_both,
        )
        for name, (temperature, what) in lines.items()
    )
    return ArenaConfig(name="A first arena", models=tuple(models)).checked()


def read_config(path: Path | str | None) -> ArenaConfig:
    """Read a file; None: `first_config`.

    Raises:
        MissingError: no such file.
        FormatError: it is not TOML.
        OptionError: an unknown key, a value that cannot be, or as `ArenaConfig.checked`.
    """
    if path is None:
        return first_config()
    path = Path(path)
    try:
        with path.open("rb") as file:
            values = parse_toml(file.read(4 * MAX_TOML + 1).decode("utf-8-sig").replace("\r\n", "\n"))
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; docs/arena.md shows how to write one") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable TOML file ({error}); fix it") from None
    try:
        return _config(values)
    except OptionError as error:
        raise OptionError(f"{path}: {error}", param=error.param) from None


def _config(values: dict[str, Any]) -> ArenaConfig:
    for name, kind in (("limits", LimitOptions), ("pace", PaceOptions), ("engine", EngineOptions)):
        if name in values:
            values[name] = _table(name, kind, values[name])
    tables = values.pop("models", [])
    if not isinstance(tables, list):
        raise OptionError("models: write a table [[models]] for each, with two brackets", param="models")
    models = []
    for place, table in enumerate(tables, start=1):
        called = table.get("name") if isinstance(table, dict) else None
        models.append(_table(f"models {called or f'number {place}'}", ArenaModel, table))
    return ArenaConfig(**values, models=tuple(models)).checked()


def _table(name: str, kind: type[Kind], table: Any) -> Kind:
    if not isinstance(table, dict):
        raise OptionError(f"{name}: must be a table", param=name)
    try:
        return kind(**table)
    except OptionError as error:
        raise OptionError(f"{name}: {error}", param=error.param) from None


def _check_sampling(model: ArenaModel) -> None:
    """Sampling of camelid's engine is known here; an endpoint knows its own."""
    if own := next((name for name in model.sampling if name in _OURS), None):
        raise OptionError(f"models {model.name}: sampling: {own} is the arena's own; leave it out", param="sampling")
    if not model.is_endpoint:
        try:
            SamplingParams(**model.sampling)
        except OptionError as error:
            raise OptionError(f"models {model.name}: sampling: {error}", param="sampling") from None
