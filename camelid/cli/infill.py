"""Fill the gap in a file, with a model trained to (Code Llama)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camelid.cli._open import Backend, Json, Model, open_llama, piped, print_json
from camelid.cli._run import takes
from camelid.cli.generate import as_json
from camelid.engine.engine import EngineOptions
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError

GAP = "<FILL>"


@takes("engine", EngineOptions)
@takes("params", SamplingParams)
def run(
    model: Model = None,
    file: Annotated[str, typer.Argument(help=f"File with one {GAP} in it; - reads a pipe.")] = "-",
    *,
    suffix_first: Annotated[bool, typer.Option("--suffix-first", help="Show the model the suffix first.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Print the file with the gap filled, not the gap alone.")
    ] = False,
    backend: Backend = "auto",
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
        print(prefix + result.text + suffix, end="")
    else:
        print(result.text)


def _cut(file: str) -> tuple[str, str]:
    if file == "-":
        text = piped()
    else:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{file}: cannot be read: {error}") from None
    if text.count(GAP) != 1:
        raise OptionError(f"{file}: must hold {GAP} exactly once, has it {text.count(GAP)} times")
    prefix, _, suffix = text.partition(GAP)
    return prefix, suffix
