"""Figures of the items that training data holds and of the others: the Llama 2 paper's four subsets (A.6)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camelid.data.manifest import Manifest, read_manifest
from camelid.errors import FormatError, OptionError
from camelid.evals.contamination.matches import contaminated
from camelid.evals.plan import canonical
from camelid.evals.records import CONTAMINATION
from camelid.evals.result import Result
from camelid.evals.task import Choices, Generate, Infill, Item, Task, Text
from camelid.files import whole_file, writing
from camelid.run_layout import CHECKPOINT, DATA

SUBSETS: Mapping[str, Callable[[float], bool]] = {
    "clean": lambda share: share < 0.2,
    "not clean": lambda share: share >= 0.2,
    "not dirty": lambda share: share < 0.8,
    "dirty": lambda share: share >= 0.8,
}
"""By the share of an item's tokens that are contaminated."""


@dataclass(frozen=True)
class Subset:
    """A score's mean over a subset of the items.

    Attributes:
        n: items in it.
        share: the mean of their contaminated shares.
        value: the score's mean; None without items.
        z: how many standard errors it lies above the mean of all items; None where that cannot be told.
    """

    n: int
    share: float
    value: float | None
    z: float | None


@dataclass(frozen=True)
class Contamination:
    """What of a benchmark stands in training data.

    Attributes:
        training: fingerprint of the data, as its manifest gives it.
        tokens: of the training data that were looked through.
        shares: item → the share of its tokens that are contaminated.
        subsets: score → name of the subset → its figure.
    """

    training: str
    tokens: int
    shares: Mapping[str, float]
    subsets: Mapping[str, Mapping[str, Subset]]

    def as_json(self) -> dict[str, Any]:
        """As `contamination.json` holds it."""
        return asdict(self)


def training_of(model: Path) -> Path | None:
    """The data that a checkpoint was pretrained on, if it lies in its run still."""
    model = model.resolve()
    if not (model / CHECKPOINT).is_file():
        return None
    data = model.parent.parent / DATA
    return data if data.is_dir() else None


def training_fingerprint(data: Path) -> str:
    """Of the data of a run, or of a data folder."""
    return read_manifest(_folder(data)).fingerprint()


def _folder(data: Path) -> Path:
    return data / DATA if (data / DATA).is_dir() else data


def contamination_of(result: Result, task: Task, items: Sequence[Item], data: Path) -> Contamination:
    """Look for a result's items in a data folder; where the result has a folder, it is written there.

    The texts of an item are its prompt without shots, with each of its continuations; it is as contaminated as the one
    that is most.

    Args:
        items: of the result, with their contents.
        data: a run, or its data folder.

    Raises:
        OptionError: the folder holds no data, or items that are not the result's.
        MissingError, FormatError, VerifyError: the data is not complete or was changed.
    """
    folder = _folder(data)
    manifest = read_manifest(folder)
    if [item.id for item in items] != [item["id"] for item in result.items]:
        raise OptionError(f"{result.task}: these items are not those of the result; name the same --data", param="data")
    shares = dict(zip((item.id for item in items), _shares(task, items, manifest, folder), strict=True))
    scores = {own["score"] for own in result.shown.values() if "score" in own}
    subsets = {score: _subsets(result, shares, score) for score in sorted(scores)}
    tokens = sum(shard.tokens for shard in manifest.shards if not shard.validation)
    found = Contamination(manifest.fingerprint(), tokens, shares, subsets)
    if result.folder is not None:
        with writing(result.folder), whole_file(result.folder / CONTAMINATION) as file:
            file.write(canonical(found.as_json()) + b"\n")
    return found


def read_contamination(folder: Path) -> Contamination | None:
    """What was written beside a result; None if nothing was.

    Raises:
        FormatError: it cannot be read.
    """
    path = folder / CONTAMINATION
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
        subsets = {
            score: {name: Subset(**each) for name, each in own.items()} for score, own in value["subsets"].items()
        }
        return Contamination(value["training"], value["tokens"], value["shares"], subsets)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); remove it and evaluate again") from None


def _shares(task: Task, items: Sequence[Item], manifest: Manifest, folder: Path) -> list[float]:
    tokenizer = manifest.open_tokenizer(folder)
    texts = [_texts(task, item) for item in items]
    ids = [tokenizer.encode(text, bos=False) for own in texts for text in own]
    training = [manifest.tokens(folder, source.name) for source in manifest.sources]
    found = contaminated(ids, training)
    return [max((next_share(*next(found)) for _ in own), default=0.0) for own in texts]


def next_share(n_contaminated: int, n: int) -> float:
    """Of an empty text nothing is contaminated."""
    return n_contaminated / n if n else 0.0


def _texts(task: Task, item: Item) -> list[str]:
    request = task.request(item, ())
    if isinstance(request, Text):
        return [request.text]
    if isinstance(request, Choices):
        pairs = zip(request.contexts, request.continuations, strict=True)
        return [context + continuation for context, continuation in pairs]
    assert isinstance(request, Generate)
    if isinstance(request.prompt, Infill):
        return [request.prompt.prefix + request.prompt.suffix]
    if isinstance(request.prompt, str):
        return [request.prompt]
    return [message.text for message in request.prompt]


def _subsets(result: Result, shares: Mapping[str, float], score: str) -> dict[str, Subset]:
    rows = [(shares[item["id"]], item["scores"][score]) for item in result.items if score in item["scores"]]
    scores = np.array([value or 0.0 for _, value in rows], np.float64)
    mean = float(scores.mean()) if rows else math.nan
    deviation = float(scores.std(ddof=1)) if len(rows) > 1 else 0.0
    found = {}
    for name, belongs in SUBSETS.items():
        own = np.array([belongs(share) for share, _ in rows], bool)
        n = int(own.sum())
        value = float(scores[own].mean()) if n else None
        z = None if value is None or deviation == 0 else (value - mean) / (deviation / math.sqrt(n))
        found[name] = Subset(n, float(np.mean([share for share, _ in rows if belongs(share)])) if n else 0.0, value, z)
    return found
