"""Fill in the middle: prompts after which a model writes what stands between two texts.

Code Llama (Rozière et al. 2023, arXiv:2308.12950, section 2.3). The prefix is encoded as a text's beginning, the suffix
as what follows other text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from camelid.errors import OptionError, one_of
from camelid.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class _Names:
    """The tokens that a family of models uses."""

    prefix: str
    suffix: str
    middle: str
    end: str


_KNOWN = (
    _Names("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    _Names("<PRE>", "<SUF>", "<MID>", "<EOT>"),
    _Names("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"),
    _Names("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),
)


def encode_infill(tokenizer: Tokenizer, prefix: str, suffix: str, *, order: Literal["psm", "spm"] = "psm") -> list[int]:
    """The ids that ask for what stands between two texts, with BOS first if the model wants one.

    Args:
        order: prefix-suffix-middle, or suffix-prefix-middle.

    Raises:
        OptionError: the vocabulary has no tokens for filling in, or there is no such order.
    """
    ids = _ids(tokenizer)
    before, after = tokenizer.encode(prefix), tokenizer.encode_segment(suffix)
    begin = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    if order == "psm":
        return [*begin, ids["prefix"], *before, ids["suffix"], *after, ids["middle"]]
    if order == "spm":
        return [*begin, ids["prefix"], ids["suffix"], *after, ids["middle"], *before]
    raise OptionError(f"infill order: {order!r} is none; {one_of(str(order), ('psm', 'spm'))}")


def infill_stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that end what was filled in.

    Raises:
        OptionError: the vocabulary has no tokens for filling in.
    """
    return (_ids(tokenizer)["end"],)


def _ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Role → id, of the first family whose tokens are all there."""
    for names in _KNOWN:
        found = {role: tokenizer.id_of(piece) for role, piece in vars(names).items()}
        ids = {role: id for role, id in found.items() if id is not None}
        if len(ids) == len(found):
            return ids
    raise OptionError(
        "infill: this model's vocabulary has no tokens for filling in; Code Llama 7B, 13B and 70B have (▁<PRE> …)",
        param="infill",
    )
