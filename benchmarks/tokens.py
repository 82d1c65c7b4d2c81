"""Tokenisers beside each other, one thread, one process, in turns: camelid, and a library with the same vocabulary.

    python benchmarks/tokens.py [--quick] [--repeats 5]

Pairs that read one vocabulary and must give the same ids: Llama 3's with tiktoken and with tokenizers, SmolLM2's with
tokenizers, one in Llama 2's style, learned here, with sentencepiece. English is Python's own documentation, each turn
a part that nobody has seen; hard texts are a megabyte each. A text is a str, and ids come as each library gives them
quickest; time is the processor's. A library that falls over a hard text, or takes too long, is found out in another
process. Prints MB/s (median, lowest to highest) and the ratio (median over turns); appends a JSON line for each.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from camelid.data.document import Document
from camelid.data.sources import corpus
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.hub.store import resolve
from camelid.tokens.backend_library import LibraryBackend
from camelid.tokens.pretokenizers import LLAMA3
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.training import TokenizerOptions, learn
from camelid.weights.open import open_weights

Encode = Callable[[str], Iterable[int]]
RESULTS = Path(__file__).parent / "results" / "tokens.jsonl"
HARD: dict[str, Callable[[int], str]] = {
    "one letter": lambda n: "a" * n,
    "spaces": lambda n: " " * n,
    "ends of lines": lambda n: "\n" * n,
    "digits": lambda n: "7" * n,
    "pairs": lambda n: "".join(random.Random(0).choices(["ab", "ba"], k=n // 2)),
    "letters": lambda n: "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=n)),
}


@cache
def english() -> list[str]:
    """The documents of Python's documentation, in a fixed random order."""
    options = corpus.Source(name="python", kind="corpus")
    documents = (document for part in corpus.file_parts(options, Path()) for document in corpus.read(part, options))
    texts = [document.text for document in documents if isinstance(document, Document)]
    random.Random(0).shuffle(texts)
    return texts


@cache
def llama3() -> Path:
    """Llama 3's ranks, in the wheel llama-models."""
    spec = importlib.util.find_spec("models")
    places = spec.submodule_search_locations if spec else None
    paths = [path for place in places or () if (path := Path(place) / "llama3" / "tokenizer.model").is_file()]
    if not paths:
        raise SystemExit("Llama 3's ranks are not here: pip install --no-deps llama-models")
    return paths[0]


def tiktoken_pair() -> tuple[Tokenizer, Encode]:
    """Llama 3's vocabulary."""
    import tiktoken

    lines = (line.split() for line in llama3().read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    theirs = tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})
    return Tokenizer.open(llama3()), theirs.encode_ordinary


def tokenizers_pair(tokenizer: Tokenizer) -> tuple[Tokenizer, Encode]:
    """Any vocabulary."""
    return tokenizer, LibraryBackend(tokenizer._vocabulary).encode


def sentencepiece_pair() -> tuple[Tokenizer, Encode]:
    """A vocabulary in Llama 2's style, of 32,000 pieces or as many as the documentation gives."""
    import sentencepiece

    ours = learn(english(), TokenizerOptions(train="llama2", vocab_size=16000))
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        file.write(ours.to_meta())
        file.flush()
        return ours, sentencepiece.SentencePieceProcessor(model_file=file.name).encode


PAIRS: dict[str, Callable[[], tuple[Tokenizer, Encode]]] = {
    "Llama 3, tiktoken": tiktoken_pair,
    "Llama 3, tokenizers": lambda: tokenizers_pair(Tokenizer.open(llama3())),
    "SmolLM2, tokenizers": lambda: tokenizers_pair(open_weights(resolve(DEFAULT_MODEL)).tokenizer),
    "Llama 2's style, sentencepiece": sentencepiece_pair,
}


def survives(pair: str, hard: str, size: int) -> bool:
    """Does the library do this text within 25 seconds? Asked in another process."""
    command = [sys.executable, __file__, "--try", pair, hard, str(size)]
    try:
        return subprocess.run(command, capture_output=True, timeout=25, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def measure(ours: Encode, theirs: Encode | None, texts: list[str]) -> dict[str, object]:
    """Both in turns, a text a turn; the first text warms up."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for turn, text in enumerate(texts):
        given = []
        for place, encode in enumerate((ours, theirs)):
            if encode is None:
                continue
            started = time.process_time()
            ids = encode(text)
            seconds = time.process_time() - started
            given.append(list(ids))
            if turn:
                speeds[place].append(len(text.encode()) / seconds / 1e6)
        if given[0] != given[-1]:
            raise SystemExit("the ids differ")
    row: dict[str, object] = {"camelid": _spread(speeds[0])}
    if theirs is not None:
        row["library"] = _spread(speeds[1])
        row["ratio"] = round(statistics.median(a / b for a, b in zip(*speeds, strict=True)), 1)
    return row


def _spread(speeds: list[float]) -> list[float]:
    return [round(value, 2) for value in (statistics.median(speeds), min(speeds), max(speeds))]


def main() -> None:
    """Print a line for each pair and text."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the hard texts, two turns")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--try", nargs=3, dest="attempt", help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.attempt:
        pair, hard, size = choices.attempt
        PAIRS[pair]()[1](HARD[hard](int(size)))
        return
    repeats, size = (2, 100_000) if choices.quick else (choices.repeats, 1_000_000)
    parts = ["\n\n".join(english()[turn :: repeats + 1]) for turn in range(repeats + 1)]
    for pair, make in PAIRS.items():
        ours, theirs = make()
        for name, texts in {
            "English": parts,
            **{hard: [text(size)] * (repeats + 1) for hard, text in HARD.items()},
        }.items():
            peer = theirs if name == "English" or survives(pair, name, size) else None
            row = {"pair": pair, "text": name, "bytes": len(texts[0].encode()), **measure(ours.encode, peer, texts)}
            print(json.dumps(row), flush=True)
            if not choices.quick:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
