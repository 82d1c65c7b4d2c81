"""Fill-in-the-middle prompts of Code Llama (Rozière et al. 2023, arXiv:2308.12950, section 2.3).

The prefix is encoded as a text's beginning, the suffix as what follows other text; both orders begin with BOS.
"""

from __future__ import annotations

from typing import Literal

from camelid.errors import OptionError, one_of
from camelid.tokens.tokenizer import Tokenizer

# role → how vocabularies write its token
_PIECES = {
    "prefix": ("▁<PRE>", "<PRE>", "<fim_prefix>", "<|fim_prefix|>"),
    "suffix": ("▁<SUF>", "<SUF>", "<fim_suffix>", "<|fim_suffix|>"),
    "middle": ("▁<MID>", "<MID>", "<fim_middle>", "<|fim_middle|>"),
    "end": ("▁<EOT>", "<EOT>"),
}


def encode_infill(tokenizer: Tokenizer, prefix: str, suffix: str, *, order: Literal["psm", "spm"] = "psm") -> list[int]:
    """The ids that ask for what stands between two texts.

    Args:
        order: prefix-suffix-middle, or suffix-prefix-middle.

    Raises:
        OptionError: the vocabulary has no fill-in tokens, or there is no such order.
    """
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    pre, suf, mid = (_id(tokenizer, role) for role in ("prefix", "suffix", "middle"))
    before, after = tokenizer.encode(prefix), tokenizer.encode_segment(suffix)
    if order == "psm":
        return [*begin, pre, *before, suf, *after, mid]
    if order == "spm":
        return [*begin, pre, suf, *after, mid, *before]
    raise OptionError(f"infill order: {order!r} is none; {one_of(str(order), ('psm', 'spm'))}")


def infill_stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that end what was filled in."""
    found = (tokenizer.id_of(piece) for piece in _PIECES["end"])
    return tuple(id for id in found if id is not None)


def _id(tokenizer: Tokenizer, role: str) -> int:
    for piece in _PIECES[role]:
        id = tokenizer.id_of(piece)
        if id is not None:
            return id
    raise OptionError(f"infill: this model's vocabulary has no token for the {role}; Code Llama 7B, 13B and 70B have")
