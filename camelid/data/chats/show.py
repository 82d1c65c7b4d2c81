"""One row of conversations, one pair or one prompt as training gets it, as JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camelid.data.batches import IGNORED
from camelid.data.chats.examples import Example
from camelid.data.chats.pairs import Pairs
from camelid.data.chats.prompts import Prompts
from camelid.data.chats.rows import ConversationRows
from camelid.data.manifest import read_manifest


def row_of(data: Path, row: int, context: int | None = None, seed: int | None = None) -> dict[str, Any]:
    """A row in the order of training.

    Args:
        data: a data folder that `prepare_chats` made.
        row: its number, from 0.
        context: tokens of a row of conversations; as they were prepared, if not given.
        seed: of the order; the recipe's, if not given.

    Returns:
        `form`, `row`, `pieces` (each conversation with where it came from, its `ids` and which of them are `learned`,
        a pair's two with `answer`), `share` (of learned tokens, of this row and of all the data), and what else is
        known of a pair or a prompt as `about`.

    Raises:
        OptionError, MissingError, FormatError, VerifyError: as `ConversationRows`, `Pairs` and `Prompts`.
    """
    manifest = read_manifest(data)
    assert manifest.chats is not None
    form, seed = manifest.chats["form"], manifest.seed if seed is None else seed
    if form == "conversations":
        shown = _conversations(ConversationRows(data, context or manifest.chats["context"], 1, seed), row)
    elif form == "preferences":
        shown = _pair(Pairs(data, 1, seed), row)
    else:
        shown = _prompt(Prompts(data, 1, seed), row)
    learned = [each for piece in shown["pieces"] for each in piece["learned"]]
    tokens = sum(shard.tokens for shard in manifest.shards)
    share = {"row": sum(learned) / max(1, len(learned)), "data": manifest.chats["learned_tokens"] / max(1, tokens)}
    return {"form": form, "row": row, **shown, "share": share}


def _conversations(rows: ConversationRows, row: int) -> dict[str, Any]:
    batch, [told] = rows.step(row), rows.rows_of(row)
    learned = [False, *(batch.targets[0][:-1] != IGNORED).tolist()]  # a token is learned where it is a target
    pieces, start = [], 0
    for piece in told:
        stop = start + piece["stop"]
        pieces.append({**piece, "ids": batch.ids[0, start:stop].tolist(), "learned": learned[start:stop]})
        start = stop
    return {"context": rows.context, "pieces": pieces}


def _pair(pairs: Pairs, row: int) -> dict[str, Any]:
    [pair], [told] = pairs.step(row), pairs.rows_of(row)
    examples = (pair.chosen, pair.rejected)
    pieces = [piece | _ids(example) for piece, example in zip(told, examples, strict=True)]
    labels = {"grade": pair.grade, "chosen_safe": pair.chosen_safe, "rejected_safe": pair.rejected_safe}
    return {"pieces": pieces, "about": {**pair.about, **labels}}


def _prompt(prompts: Prompts, row: int) -> dict[str, Any]:
    [prompt], [[told]] = prompts.step(row), prompts.rows_of(row)
    piece = {**told, "ids": prompt.ids.tolist(), "learned": [False] * len(prompt.ids)}
    return {"pieces": [piece], "messages": list(prompt.messages), "about": dict(prompt.about)}


def _ids(example: Example) -> dict[str, Any]:
    return {"ids": example.ids.tolist(), "learned": example.learned.tolist()}
