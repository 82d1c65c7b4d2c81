"""What camelid says when it cannot go on.

    CamelidError            everything a user can cause; printed as one line, exit status 2
    ├── OptionError         an option, a recipe value or an argument      "temperature: must be 0 or more, got -1"
    │   └── ContextError    more tokens than the context holds            "prompt: has 9001 tokens, the context is …"
    ├── FormatError         a file is not what it should be               "m.gguf: blk.3.attn_q: 4096 bytes short; …"
    ├── UnsupportedError    well formed, but not done here                "config.json: rope_scaling 'longrope' …"
    ├── MissingError        something must be installed or fetched first  "training needs torch: pip install …"
    ├── ResourceError       memory, disk or network refuse                "needs 26.1 GB of memory, 20.3 GB free; …"
    ├── NumericsError       a computation left the numbers                "logits of layer … are not finite; …"
    └── VerifyError         a hash or a golden sample differs             "m.gguf: SHA-256 differs; …"

A message is one line that says what is wrong, where, and what to do. `assert` is for our own invariants.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CamelidError(Exception):
    """Anything a user can cause. The command line prints it as one line and exits with status 2.

    Attributes:
        param: the option, field or argument that is wrong, as the message names it; None where it is about none.
    """

    def __init__(self, *message: object, param: str | None = None) -> None:
        super().__init__(*message)
        self.param = param


class OptionError(CamelidError, ValueError):
    """An option, a recipe value or an argument is wrong."""


class ContextError(OptionError):
    """A prompt is longer than the context.

    Attributes:
        n_tokens: of the prompt.
        context: most tokens that prompt and answer may have together.
    """

    def __init__(self, message: str, n_tokens: int, context: int, *, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.n_tokens, self.context = n_tokens, context


class FormatError(CamelidError, ValueError):
    """A file is not what it claims to be, or is damaged."""


class UnsupportedError(CamelidError):
    """Well formed, but camelid does not do it."""


class MissingError(CamelidError):
    """Something must be installed or fetched first."""


class ResourceError(CamelidError):
    """Memory, disk or network refuse."""


class NumericsError(CamelidError, ArithmeticError):
    """A computation gave numbers that are not finite."""


class VerifyError(CamelidError):
    """A hash or a golden sample differs from what is on record."""


def one_of(word: str, choices: Iterable[str]) -> str:
    """End an error about an unknown word: the nearest choice, if one is near, and all choices."""
    choices = sorted(choices)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}choices: {', '.join(choices)}"
