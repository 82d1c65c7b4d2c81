"""Have the local answers of a battle written again, and compare them bit for bit."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.cli.console import print_json, saying
from camelid.cli.options import Json
from camelid.cli.verbs.arena.serve import ConfigFile, with_database
from camelid.errors import OptionError, VerifyError, one_of
from camelid.streams import write

if TYPE_CHECKING:
    from camelid.arena.live.store import Whole
    from camelid.chat.llama import Llama
    from camelid.serve.options import ServeOptions


def run(
    battle: Annotated[str, typer.Argument(help="Name of the battle, as exports and the leaderboard's votes have it.")],
    *,
    config: ConfigFile = None,
    database: Annotated[str | None, typer.Option(help="Where the arena keeps it; as camelid arena serve.")] = None,
    data: Annotated[Path | None, typer.Option(help="The arena's SQLite file.")] = None,
    json_: Json = False,
) -> None:
    """Answers of other servers cannot be repeated, and are named as such. Exit status 2 if an answer is not equal."""
    from camelid.arena.config import read_config
    from camelid.arena.live.replay import replay
    from camelid.chat.load import load
    from camelid.serve.options import ServeOptions

    arena = read_config(config)
    whole = asyncio.run(_read(battle, with_database(ServeOptions(database=database, data=data))))
    known = arena.by_name()

    def opened(name: str) -> Llama:
        if name not in known:
            raise OptionError(f"{config}: {name} is no longer in it; {one_of(name, known)}")
        model = known[name]
        with saying(f"loading {model.source}"):
            return load(model.source, backend=model.backend, options=arena.engine, chat_format=model.chat_format)

    found = list(replay(whole, opened))
    if json_:
        print_json({"battle": battle, "answers": [asdict(each) for each in found]})
    else:
        for each in found:
            more = f" ({each.detail})" if each.detail else ""
            write(f"turn {each.turn}, {each.side.upper()}, {each.model}: {each.outcome}{more}\n")
    if wrong := [each for each in found if each.outcome not in ("equal", "elsewhere", "deleted")]:
        first = wrong[0]
        raise VerifyError(f"{battle}: turn {first.turn}, {first.side.upper()}, {first.model}: {first.outcome}")


async def _read(battle: str, options: ServeOptions) -> Whole:
    from camelid.arena.live.clock import Clock
    from camelid.arena.live.store import Store
    from camelid.serve.app import database_of

    database = database_of(options)
    store = Store(database, Clock())
    await asyncio.to_thread(store.open)
    try:
        return await store.read(battle)
    finally:
        await database.close()
