"""Fill the gap in a file, with a model trained to (Code Llama)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camelid.cli.console import print_json
from camelid.cli.flags import takes
from camelid.cli.options import BackendName, Json, ModelName, open_llama
from camelid.cli.verbs.generate import as_json
from camelid.engine.engine import EngineOptions
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError
from camelid.streams import read_stdin, read_text, write

GAP = "<FILL>"


@takes("engine", EngineOptions)
@takes("params", SamplingParams)
def run(
    model: ModelName = None,
    file: Annotated[str, typer.Argument(help=f"File with one {GAP} in it; - reads a pipe.")] = "-",
    *,
    suffix_first: Annotated[bool, typer.Option("--suffix-first", help="Show the model the suffix first.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Print the file with the gap filled, not the gap alone.")
    ] = False,
    backend: BackendName = "auto",
    json: Json = False,
    params: SamplingParams,
    engine: EngineOptions,
) -> None:
    """What belongs where the file says <FILL> goes to standard output."""
    prefix, suffix = _cut(file)
    llama = open_llama(model, backend, engine)
    result = llama.infill(prefix, suffix, params.over(llama.params), order="spm" if suffix_first else "psm")
    if json:
        print_json(as_json(result))
    elif whole:
        write(prefix + result.text + suffix)
    else:
        write(result.text + "\n")


def _cut(file: str) -> tuple[str, str]:
    text = read_stdin() if file == "-" else read_text(Path(file))
    if text.count(GAP) != 1:
        raise OptionError(f"{file}: must hold {GAP} exactly once, has it {text.count(GAP)} times")
    prefix, _, suffix = text.partition(GAP)
    return prefix, suffix
