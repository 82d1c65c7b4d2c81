"""tiktoken's rank files, Meta's `tokenizer.model` of Llama 3: a line is a piece in base64, a space, and its rank.

Meta's code encodes texts of more than 400,000 characters, and runs of more than 25,000 spaces or other characters, in
parts, to spare its library; at such a seam its ids can differ from these, which are those of the whole text.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from camelid.errors import FormatError, UnsupportedError
from camelid.tokens.merges import merges_in_order
from camelid.tokens.pretokenizers import name_of, splitter_named
from camelid.tokens.vocabulary import CONTROL, NORMAL, Vocabulary, byte_alphabet, byte_characters, spell_bytes

_SPECIALS = 256
_NAMED = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
)
SPECIALS = (*_NAMED, *(f"<|reserved_special_token_{n}|>" for n in range(2, 2 + _SPECIALS - len(_NAMED))))
_ADVICE = "fetch it again"


def read_tiktoken(path: Path, data: bytes) -> Vocabulary:
    """The vocabulary of a rank file; 256 control tokens with Llama 3.1's names follow the ranks, as in Meta's code.

    Raises:
        FormatError: damaged, or not all of the 256 bytes are pieces.
    """
    words = data.split()
    count = len(words) // 2
    if len(words) % 2 or not count or words[1::2] != [b"%d" % rank for rank in range(count)]:
        raise FormatError(f"{path}: not lines of a piece and its rank, 0, 1, 2 and so on; {_ADVICE}")
    try:
        tokens = [binascii.a2b_base64(word, strict_mode=True) for word in words[::2]]
    except binascii.Error as error:
        raise FormatError(f"{path}: a piece is not base64 ({error}); {_ADVICE}") from None
    pieces = [spell_bytes(token) for token in tokens]
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    if len(ranks) != count or not all(map(ranks.__contains__, byte_characters())):
        raise FormatError(f"{path}: a piece twice, or a byte that is no piece; {_ADVICE}")
    ids = {name: count + n for n, name in enumerate(SPECIALS)}
    return Vocabulary(
        kind="bpe",
        pieces=[*pieces, *SPECIALS],
        types=[NORMAL] * count + [CONTROL] * _SPECIALS,
        merges=merges_in_order(pieces, ranks),
        splitter=splitter_named("llama-bpe"),
        bos_id=ids["<|begin_of_text|>"],
        eos_id=ids["<|end_of_text|>"],
        pad_id=ids["<|finetune_right_pad_id|>"],
        adds_bos=True,
        source=str(path),
        extra={"eot_token_id": ids["<|eot_id|>"], "eom_token_id": ids["<|eom_id|>"]},
    )


def write_tiktoken(vocabulary: Vocabulary) -> bytes:
    """A rank file for a vocabulary with Llama 3's structure; names of reserved control tokens are not in the format.

    Raises:
        UnsupportedError: Meta's code would read other ids from the file.
    """
    count = len(vocabulary.pieces) - _SPECIALS
    if name_of(vocabulary.splitter) != "llama-bpe":
        raise UnsupportedError("tokenizer.model: Meta's code cuts text as Llama 3 does, and this tokenizer does not")
    if count < 256 or list(vocabulary.types) != [NORMAL] * count + [CONTROL] * _SPECIALS:
        raise UnsupportedError(f"tokenizer.model: Meta's code has {_SPECIALS} control tokens, after all other pieces")
    for n, name in enumerate(_NAMED):
        if "reserved" not in name and name in vocabulary.pieces and vocabulary.pieces[count + n] != name:
            raise UnsupportedError(f"tokenizer.model: Meta's code has {name} at {count + n}, this tokenizer elsewhere")
    pieces, alphabet = vocabulary.pieces[:count], byte_alphabet()
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    given = [ranks.get(left + right, -1) for left, right in vocabulary.merges]
    ordered = given == sorted(given) and -1 not in given and set(alphabet) <= set(pieces)
    if not ordered or not set(merges_in_order(pieces, ranks)) <= set(vocabulary.merges):
        raise UnsupportedError("tokenizer.model: the ids are not in the order of the merges, as Meta's file needs")
    tokens = (bytes(map(alphabet.__getitem__, piece)) for piece in pieces)
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
