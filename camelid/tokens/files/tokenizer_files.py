"""Which file holds a folder's vocabulary, and what reads it."""

from __future__ import annotations

import re
from pathlib import Path

from camelid.errors import MissingError
from camelid.tokens.files.tokenizer_config import read_beside, with_beside
from camelid.tokens.vocabulary import Vocabulary

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\s")


def read_vocabulary(path: Path, rows: int | None = None) -> Vocabulary:
    """The vocabulary of a file, whatever its name, or of the first such file in a folder, with what lies beside it.

    Args:
        path: file or folder.
        rows: of the model's embedding, if there is one.

    Raises:
        MissingError, FormatError, UnsupportedError: as `Tokenizer.open`.
    """
    if path.is_dir():
        own = next((path / name for name in TOKENIZER_FILES if (path / name).is_file()), None)
        ggufs = [] if own else sorted(path.glob("*.gguf"))
        own = ggufs[0] if len(ggufs) == 1 else own
        if own is None:
            raise MissingError(f"{path}: no tokenizer; fetch {' or '.join(TOKENIZER_FILES)} into the folder")
        path = own
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        data = b"" if is_gguf else path.read_bytes()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if is_gguf:
        from camelid.tokens.files.gguf_fields import read_fields
        from camelid.tokens.files.gguf_vocab import read_gguf_vocabulary

        return read_gguf_vocabulary(read_fields(path))
    if data.lstrip()[:1] == b"{":
        from camelid.tokens.files.tokenizer_json import read_json_vocabulary

        return read_json_vocabulary(path, rows)
    if _RANK_LINE.match(data):
        from camelid.tokens.files.tiktoken_file import read_tiktoken

        return read_tiktoken(path, data)
    from camelid.tokens.files.sentencepiece_file import read_sentencepiece

    return with_beside(read_sentencepiece(path, data), read_beside(path), rows)
