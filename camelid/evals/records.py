"""The folder of a result: complete or going on, and the same bits whichever way it came to be.

    results/mmlu--smollm2-135m-instruct/
    ├── items.jsonl    a line an item, in their order: hash of the prompt, answers, what was taken from them, scores
    ├── result.json    the figures, and the conditions under which they arose
    ├── run.json       pedigree: command, files and their hashes, machine, date
    ├── timing.json    what differs from run to run: seconds
    ├── contamination.json  what of the items stands in the training data, where somebody looked
    └── .log.jsonl     while it goes on: every answer and verdict, as it came; then it is removed

The log is only appended to. Its first line holds the conditions: a run under others does not go on from it. A line that
a kill tore is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

from camelid.errors import FormatError, NotFoundError, OptionError
from camelid.evals.ask import Reply
from camelid.evals.plan import canonical
from camelid.evals.task import Answer, Likelihoods, TextLoss, Verdict, Written
from camelid.files import lock, whole_file, writing

ITEMS, RESULT, TIMING, LOG = "items.jsonl", "result.json", "timing.json", ".log.jsonl"
CONTAMINATION = "contamination.json"
_KINDS: dict[str, Any] = {
    "likelihoods": Likelihoods,
    "written": Written,
    "loss": TextLoss,
}
Key = tuple[int, str, int]  # item, "turn" or "judge", number


class Log:
    """Answers and verdicts as they come, in memory and, if there is a folder, on the disk.

    Attributes:
        replies: by item, kind and number of the request.
        verdicts: by item.
        seconds: that runs before this one took, as far as they were told.
    """

    def __init__(self, folder: Path | None, conditions: Mapping[str, Any]) -> None:
        self.replies: dict[Key, Reply] = {}
        self.prompts: dict[Key, str] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.seconds = 0.0
        self._file: BinaryIO | None = None
        self._held = ExitStack()
        if folder is not None:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self._held.enter_context(lock(folder / ".lock", lambda: _refuse(folder)))
                try:
                    self._open(folder, conditions)
                except BaseException:
                    self._held.close()
                    raise

    def _open(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        path = folder / LOG
        head = canonical({"conditions": conditions}) + b"\n"
        sound = self._read(path, head, folder) if path.exists() else 0
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._file.truncate(sound)
        self._file.seek(sound)
        if not sound:
            self._file.write(head)

    def _read(self, path: Path, head: bytes, folder: Path) -> int:
        """Take what is there; gives the length of what is sound."""
        data = path.read_bytes()
        lines = data.split(b"\n")[:-1]  # behind the last line end there is nothing, or a torn line
        if not lines:
            return 0
        if lines[0] + b"\n" != head:
            raise OptionError(f"{folder}: {_what_differs(lines[0], head)}; take another --out, or --again")
        sound = 0
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError):
                break  # not the last line, but a disk may tear others
            sound += len(line) + 1
        return sound

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "verdict" in entry:
            own = entry["verdict"]
            self.verdicts[entry["item"]] = Verdict(own["scores"], own["filtered"], tuple(own["notes"]))
        elif "answer" in entry:
            key = (entry["item"], entry["kind"], entry["number"])
            answer = answer_from(entry["answer"])
            self.replies[key] = Reply(answer, entry["n_prompt"], entry["ids_sha256"], tuple(entry["notes"]))
            self.prompts[key] = entry["prompt_sha256"]
        elif "seconds" in entry:
            self.seconds += entry["seconds"]

    def add_reply(self, key: Key, prompt_sha256: str, reply: Reply) -> None:
        """An answer came."""
        item, kind, number = key
        self.replies[key], self.prompts[key] = reply, prompt_sha256
        self._write(
            {
                "item": item,
                "kind": kind,
                "number": number,
                "prompt_sha256": prompt_sha256,
                "n_prompt": reply.n_prompt,
                "ids_sha256": reply.ids_sha256,
                "notes": reply.notes,
                "answer": answer_as_json(reply.answer),
            }
        )

    def add_verdict(self, item: int, verdict: Verdict) -> None:
        """An item was scored."""
        self.verdicts[item] = verdict
        self._write({"item": item, "verdict": asdict(verdict)})

    def add_seconds(self, seconds: float) -> None:
        """So long this run has taken since the last call."""
        self.seconds += seconds
        self._write({"seconds": seconds})

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(canonical(entry) + b"\n")  # unbuffered: it outlives a kill of this process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Let others have the folder."""
        if self._file is not None:
            self._file.close()
        self._held.close()


def _refuse(folder: Path) -> None:
    raise OptionError(f"{folder}: another run is writing it; wait for it, or take another --out")


def _what_differs(there: bytes, here: bytes) -> str:
    """Names of conditions in which two heads differ."""
    try:
        old, new = (json.loads(text)["conditions"] for text in (there, here))
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    except (ValueError, KeyError, TypeError):
        names = []
    return f"holds a run under other conditions ({', '.join(names) or 'unreadable'})"


def answer_as_json(answer: Answer) -> dict[str, Any]:
    """An answer as JSON values."""
    (kind,) = (name for name, own in _KINDS.items() if isinstance(answer, own))
    return {"kind": kind, **asdict(answer)}


def answer_from(value: Mapping[str, Any]) -> Answer:
    """What `answer_as_json` made."""
    fields = {name: tuple(own) if isinstance(own, list) else own for name, own in value.items() if name != "kind"}
    answer: Answer = _KINDS[value["kind"]](**fields)
    return answer


def write_result(
    folder: Path, items: Sequence[Mapping[str, Any]], result: Mapping[str, Any], timing: Mapping[str, Any]
) -> None:
    """The files of a finished run; `result.json` last but for the log, which is removed."""
    with writing(folder):
        with whole_file(folder / ITEMS) as file:
            for item in items:
                file.write(canonical(item) + b"\n")
        with whole_file(folder / TIMING) as file:
            file.write(_pretty(timing))
        with whole_file(folder / RESULT) as file:
            file.write(_pretty(result))
        (folder / LOG).unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Remove what a run left, so that it begins anew; no other file of the folder is touched."""
    for name in (RESULT, ITEMS, TIMING, LOG, CONTAMINATION):
        (folder / name).unlink(missing_ok=True)


def _pretty(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


def read_result(folder: Path) -> dict[str, Any] | None:
    """`result.json`, if the run is finished.

    Raises:
        FormatError: it cannot be read.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable result ({error}); remove it and evaluate again") from None
    if not isinstance(result, dict) or not {"task", "model", "metrics", "conditions"} <= set(result):
        raise FormatError(f"{path}: not a result of camelid's; remove it and evaluate again")
    return result


def read_items(folder: Path) -> list[dict[str, Any]]:
    """The lines of `items.jsonl`.

    Raises:
        NotFoundError: there is no result.
        FormatError: it cannot be read.
    """
    path = folder / ITEMS
    if not path.is_file():
        raise NotFoundError(f"{folder}: holds no result; name a folder that camelid eval has made")
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable result ({error}); evaluate again") from None


def read_timing(folder: Path) -> float:
    """Seconds that a finished run took; 0 if nobody knows."""
    try:
        return float(json.loads((folder / TIMING).read_bytes())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
