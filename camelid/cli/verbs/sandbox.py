"""Run a Python program that nobody has read, apart and within limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from camelid.cli.console import print_json
from camelid.cli.flags import takes
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.evals.sandbox.limits import Limits
from camelid.streams import literal, read_text, write

TestFile = Annotated[
    Path | None,
    typer.Option("--test", help="Python that asserts things of the program; runs where the program cannot reach it."),
]
Imports = Annotated[
    list[str] | None,
    typer.Option("--allow-import", help="A package of this machine that the program may import; may be repeated."),
]
Accept = Annotated[
    bool, typer.Option("--i-accept-running-generated-code", help="Needed below strict, which keeps less away from you.")
]


@takes("limits", Limits)
def run(
    file: Annotated[Path, typer.Argument(help="The program, a Python file.")],
    *,
    test: TestFile = None,
    allow_import: Imports = None,
    sandbox: Annotated[Literal["strict", "basic"], typer.Option(help="What is asked of this machine.")] = "strict",
    accept: Accept = False,
    json: Json = False,
    limits: Limits,
) -> None:
    """It passes if it runs to its end without an exception (sys.exit is one), within the limits, and if all that --test
    asserts of its functions holds. It sees the standard library and an empty folder, and no network. What it prints
    goes to standard output, what became of it to standard error."""
    from camelid.evals.sandbox import Sandbox
    from camelid.evals.sandbox.calls import find_calls

    source = read_text(file)
    asked = None if test is None else find_calls(read_text(test), source)
    imports = tuple(allow_import or ())
    with Sandbox(sandbox, limits, imports=imports, workers=1, accept_generated_code=accept) as box:
        ran = box.run(source, asked)
    if json:
        words = {"passed": ran.passed, "reason": ran.reason, "limit": ran.limit, "enforced": list(box.enforced)}
        words |= {"stdout": ran.stdout, "stderr": ran.stderr, "seconds": round(ran.seconds, 6)}
        print_json(words | {"cpu_seconds": ran.cpu_seconds})
        return
    write(ran.stdout)
    console = Terminal(stderr=True)
    for line in box.enforced:
        console.print(f"[dim]{literal(line)}[/]")
    colour = "green" if ran.passed else "red"
    console.print(f"[{colour}]{'passed' if ran.passed else 'failed'}[/]: {literal(ran.reason)}, {ran.seconds:.3f} s")
