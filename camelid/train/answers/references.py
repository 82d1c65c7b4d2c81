"""What a frozen reference says of pairs: log-probabilities, computed once and kept beside the data.

`reference.jsonl` begins with a line on what they were computed by: the hash of the reference, the arithmetic, and which
tokens count. A pair is known by the hash of its ids and masks. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from camelid.data.chats.examples import Pair
from camelid.errors import FormatError, MissingError, OptionError
from camelid.files import writing

NAME = "reference.jsonl"

Logprobs = tuple[float, float]
"""Of the chosen and of the rejected answer, in nats."""


class References:
    """Log-probabilities of pairs under a reference.

    Args:
        path: the file; it need not be there.
        about: what they depend on, by the recipe's words; `reference` is the model's hash.

    Raises:
        OptionError: what is there was computed by another reference, or otherwise.
        FormatError: it is damaged.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path, self._about = path, dict(about)
        self._known: dict[str, Logprobs] = {}
        self._data, self._steps = "", 0
        if path.exists():
            self._read()

    def is_complete(self, data: str, steps: int) -> bool:
        """Whether all pairs of so many steps are here, of data with this fingerprint."""
        return self._data == data and self._steps >= steps

    def lacks(self, pairs: Iterable[Pair]) -> bool:
        """Whether any of them is not here."""
        return any(_key(pair) not in self._known for pair in pairs)

    def of(self, pairs: Iterable[Pair]) -> list[Logprobs]:
        """What the reference says.

        Raises:
            MissingError: one is not here.
        """
        try:
            return [self._known[_key(pair)] for pair in pairs]
        except KeyError:
            raise MissingError(
                f"{self._path}: a pair has no log-probability of the reference; delete the file, and it is made again"
            ) from None

    def add(self, pairs: Sequence[Pair], logprobs: Sequence[Logprobs]) -> dict[str, Logprobs]:
        """Take them in; returns what is new, by the names under which `write` puts it into the file."""
        named = {_key(pair): values for pair, values in zip(pairs, logprobs, strict=True)}
        added = {key: values for key, values in named.items() if key not in self._known}
        self._known |= added
        return added

    def write(self, added: Mapping[str, Logprobs]) -> None:
        """Append to the file, which begins to be, if it is not there."""
        lines = [] if self._path.exists() else [json.dumps(self._about)]
        lines += [json.dumps({"pair": key, "logprobs": list(values)}) for key, values in added.items()]
        self._append(lines)

    def finish(self, data: str, steps: int) -> None:
        """All pairs of so many steps are here, of data with this fingerprint."""
        self._append([json.dumps({"complete": data, "steps": steps})])

    def _append(self, lines: Sequence[str]) -> None:
        with writing(self._path), self._path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    def _read(self) -> None:
        """What is there; half a last line, which a killed process leaves, is cut off."""
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        lines = whole.splitlines()
        if not lines:
            self._path.unlink()
            return
        try:
            about, *rows = [json.loads(line) for line in lines]
            for row in rows:
                self._take(row)
            changed = [name for name in self._about if about.get(name) != self._about[name]]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise FormatError(f"{self._path}: damaged; delete it, and it is made again") from None
        if changed:
            raise OptionError(f"{self._path}: {self._words(about, changed)}")

    def _take(self, row: Mapping[str, Any]) -> None:
        if "complete" in row:
            self._data, self._steps = str(row["complete"]), int(row["steps"])
        else:
            chosen, rejected = row["logprobs"]
            self._known[row["pair"]] = (float(chosen), float(rejected))

    def _words(self, about: Mapping[str, Any], changed: Sequence[str]) -> str:
        said = (f"{name} was {str(about.get(name))[:12]}, is {str(self._about[name])[:12]}" for name in changed)
        return f"not what is asked for now: {', '.join(said)}; put it back, or delete the file and start with --fresh"


def _key(pair: Pair) -> str:
    hashed = hashlib.sha256()
    for answer in (pair.chosen, pair.rejected):
        hashed.update(len(answer.ids).to_bytes(8, "little"))
        hashed.update(answer.ids.astype("<i8").tobytes() + answer.learned.astype("u1").tobytes())
    return hashed.hexdigest()[:32]
