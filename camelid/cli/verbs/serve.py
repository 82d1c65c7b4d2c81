"""Serve models over HTTP: OpenAI's API, and pages to chat and to look inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.cli.console import saying, stderr
from camelid.cli.flags import takes
from camelid.cli.options import BackendName, ChatFormatName, fetch_default
from camelid.engine.engine import EngineOptions
from camelid.errors import OptionError
from camelid.serve.options import ServeOptions
from camelid.streams import literal

if TYPE_CHECKING:
    from fastapi import APIRouter

    from camelid.chat.llama import Llama
    from camelid.hub.store import Name
    from camelid.serve.models import Models
    from camelid.serve.worker import Worker

GB = 10**9
RESULTS = Path("results")  # where camelid eval puts them


@takes("engine", EngineOptions)
@takes("options", ServeOptions, without=("api_keys", "cors_origins", "allowed_hosts"))
def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Folders, .gguf files or names.", show_default=False),
    ] = None,
    *,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that clients must bring; several may be given. Or $CAMELID_API_KEY.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page's origin that may call: https://example.org, app://*, null, *; several too."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name that a proxy calls the server by; several too, or *.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="A LoRA adapter's folder, as NAME=DIR too: a model of its own beside its base; several."),
    ] = None,
    backend: BackendName = "auto",
    chat_format: ChatFormatName = None,
    options: ServeOptions,
    engine: EngineOptions,
) -> None:
    """The small default model is served when none is named. Ctrl-C lets running requests finish."""
    origins, hosts = tuple(cors_origin or ()), tuple(allowed_host or ())
    options = options.with_(api_keys=_keys(api_key), cors_origins=origins, allowed_hosts=hosts)
    adapters = named_adapters(adapter or [])
    named = _names(models or bases_of(adapters))
    if taken := next((name for name in adapters if name in named), None):
        raise OptionError(f"--adapter: the name {taken} is a model's; give it another one: --adapter NAME=DIR")
    from camelid.serve.server import listen, serve

    listener, url = listen(options)  # before models are loaded: a port in use is told at once
    with listener:
        loaded = _load(named, adapters, backend, chat_format, engine, options)
        serve(loaded, options, listener, lambda: _show(loaded, options, url), guests(options))


def guests(options: ServeOptions) -> list[APIRouter]:
    """Pages over rooms that serve does not know."""
    from camelid.evals.browsing import ResultStore
    from camelid.serve.pages.benchmarks.routes import benchmarks_router

    return [benchmarks_router(ResultStore(options.results or RESULTS))]


def _keys(given: list[str] | None) -> tuple[str, ...]:
    """Keys of flags, else the one of the environment, which other users of the machine cannot see."""
    key = os.environ.get("CAMELID_API_KEY")
    return tuple(given or ([key] if key else []))


def _names(models: list[str]) -> dict[str, str]:
    """The name that clients use → what was given: a catalog's name, or the file's without its ending.

    Raises:
        OptionError: two of them would have the same name.
    """
    from camelid.hub.catalog import DEFAULT_MODEL
    from camelid.hub.store import parse_name

    if not models:
        return {DEFAULT_MODEL: str(fetch_default())}
    named: dict[str, str] = {}
    for model in models:
        short = _short(parse_name(model), model)
        if short in named:
            raise OptionError(f"{model}: the name {short} is taken by {named[short]} already; rename one of them")
        named[short] = model
    return named


def _short(name: Name, given: str) -> str:
    if name.entry or name.is_hub:
        return str(name)
    return name.folder if name.is_url else Path(given).absolute().name.removesuffix(".gguf")


def named_adapters(given: list[str]) -> dict[str, str]:
    """Name → folder of each adapter, given as DIR or NAME=DIR.

    Raises:
        OptionError: two have the same name.
    """
    named: dict[str, str] = {}
    for words in given:
        name, equals, folder = words.partition("=")
        if not equals or not name or "/" in name:
            name, folder = Path(words).absolute().name, words
        if name in named:
            raise OptionError(f"--adapter: two are called {name}; give one another name: --adapter NAME=DIR")
        named[name] = folder
    return named


def bases_of(adapters: dict[str, str]) -> list[str]:
    """The bases that adapters name, each once; where none is given, none."""
    from camelid.chat.adapters.base import open_with_base

    return list(dict.fromkeys(str(base.path) for _, base in map(open_with_base, adapters.values())))


def _load(
    named: dict[str, str],
    adapters: dict[str, str],
    backend: str,
    chat_format: str | None,
    engine: EngineOptions,
    options: ServeOptions,
) -> Models:
    from camelid.chat.load import load
    from camelid.serve.models import Models
    from camelid.serve.worker import Worker

    workers = []
    for name, model in named.items():
        with saying(f"loading {name}"):
            llama = load(model, backend=backend, options=engine, chat_format=chat_format)
        workers.append(Worker(name, llama, options.max_waiting))
    beside = [_beside(workers, name, folder, chat_format) for name, folder in adapters.items()]
    return Models([*workers, *beside])


def _beside(workers: list[Worker], name: str, folder: str, chat_format: str | None) -> Worker:
    """An adapter beside the first model that is its base.

    Raises:
        OptionError: none is.
    """
    from camelid.chat.load import beside
    from camelid.hub.store import resolve
    from camelid.serve.adapter_worker import AdapterWorker
    from camelid.weights.lora import open_adapter

    adapter = open_adapter(resolve(folder))
    refusals = []
    for worker in workers:
        try:
            return AdapterWorker(name, beside(worker.llama, adapter, chat_format), worker)
        except OptionError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _show(models: Models, options: ServeOptions, url: str) -> None:
    """What is served, where, with which memory, and what protects it."""
    lines = [f"\n[bold]{url}[/]  [dim]pages; OpenAI's API at {url}/v1, described at {url}/docs[/]"]
    lines += [f"  [bold cyan]{literal(worker.name)}[/]  {_about(worker)}" for worker in models]
    if options.api_keys:
        lines.append("  Programs need a key (Authorization: Bearer …); browsers are asked for it once.")
    elif options.is_loopback:
        lines.append("  Only this machine can reach it; no key is asked for.")
    else:
        lines.append("  [bold yellow]Open: whoever reaches this address may use it.[/]")
    lines += [f"  {_pages(origin)} may call it." for origin in options.cors_origins]
    lines.append("  [dim]Ctrl-C ends it; running requests finish first.[/]\n")
    stderr.print("\n".join(lines), soft_wrap=True)


def _about(worker: Worker) -> str:
    from camelid.serve.adapter_worker import AdapterWorker

    if isinstance(worker, AdapterWorker):
        return f"an adapter beside {literal(worker.base)}, in the same memory and the same steps"
    return _plan(worker.llama)


def _pages(origin: str) -> str:
    if origin == "*":
        return "[bold yellow]Every page that a browser here opens[/]"
    return f"Pages of {literal(origin)}" if origin != "null" else "Pages without an origin, as files,"


def _plan(llama: Llama) -> str:
    from camelid.engine.memory import cache_bytes_per_token

    backend, pages = llama.engine.backend, llama.engine.pages
    positions = pages.n_pages * pages.page_size
    cache = positions * cache_bytes_per_token(llama.config, backend.bytes_per_number)
    return (
        f"{backend.name}, {llama.context} tokens of context, {llama.engine.options.max_running} requests at once; "
        f"{llama.weights.nbytes / GB:.2f} GB of weights, up to {cache / GB:.2f} GB of cache for {positions} tokens"
    )
