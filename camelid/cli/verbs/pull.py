"""Fetch a model once, with hashes checked; from then on nothing asks the network."""

from __future__ import annotations

from typing import Annotated

import typer

from camelid.cli.console import print_json, progress_bar, stderr
from camelid.cli.options import Json, fetch
from camelid.errors import OptionError
from camelid.hub.benchmarks import pull_benchmarks
from camelid.hub.catalog import EVAL_CORE
from camelid.streams import literal, write


def run(
    name: Annotated[
        str, typer.Argument(help="A name from `camelid models`, eval:core, hf:owner/repo, a URL, or a local path.")
    ],
    *,
    file: Annotated[str | None, typer.Option(help="Which .gguf of a repository: a name or a part, as Q4_K_M.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    token: Annotated[str | None, typer.Option(help="For gated models; else $HF_TOKEN or `hf auth login`.")] = None,
    json: Json = False,
) -> None:
    """A pull that was interrupted goes on where it stopped. eval:core are the items of benchmarks."""
    if name == EVAL_CORE:
        if file or revision:
            raise OptionError(f"{EVAL_CORE}: not a repository of the hub; leave out the revision and the file")
        with progress_bar() as show:
            path = pull_benchmarks(show)
    else:
        path = fetch(name, file=file, revision=revision, token=token)
    if json:
        print_json({"name": name, "path": str(path)})
    else:
        stderr.print(f"{literal(name)} is here: ", end="")
        write(f"{path}\n")
