"""Rows of training: against plain Python over the documents themselves."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.batches import IGNORED, Batches
from camelid.data.manifest import read_manifest
from camelid.errors import OptionError, VerifyError
from tests.data.made import byte_tokenizer, make_data, some_documents

TOKENIZER = byte_tokenizer()


def ids_of(texts: list[str]) -> list[list[int]]:
    return [[*TOKENIZER.encode(text, bos=True), 257] for text in texts]


def all_rows(batches: Batches) -> list[tuple[np.ndarray, ...]]:
    """Every row once, as (ids, targets, positions, documents)."""
    rows = []
    for step in range(batches.n_steps):
        batch = batches.step(step)
        rows += list(zip(batch.ids, batch.targets, batch.positions, batch.documents, strict=True))
    return rows


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text("ab é", max_size=30), min_size=1, max_size=12),
    context=st.integers(1, 40),
    max_bytes=st.integers(1, 200),
)
def test_every_token_is_a_target_exactly_once(tmp_path_factory, texts, context, max_bytes):
    data = make_data(tmp_path_factory.mktemp("made"), texts, max_bytes=max_bytes)
    batches = Batches(data, context, rows_per_step=1, seed=5)
    targets: Counter[int] = Counter()
    for _, row, _, _ in all_rows(batches):
        targets.update(row[row != IGNORED].tolist())
    # All tokens but those that begin a document, which nothing can foretell.
    assert targets == Counter(id for ids in ids_of(texts) for id in ids[1:])


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text("ab é", max_size=30), min_size=1, max_size=12),
    context=st.integers(1, 40),
    max_bytes=st.integers(1, 200),
)
def test_rows_are_what_plain_python_cuts(tmp_path_factory, texts, context, max_bytes):
    data = make_data(tmp_path_factory.mktemp("made"), texts[:1], validation=texts, max_bytes=max_bytes)
    flat = [(number, id) for number, ids in enumerate(ids_of(texts)) for id in ids]
    rows = all_rows(Batches(data, context, rows_per_step=1, seed=0, validation=True))
    assert len(rows) == max(0, -(-(len(flat) - 1) // context))
    for number, (ids, targets, positions, documents) in enumerate(rows):
        here = flat[number * context : number * context + context + 1]
        first = here[0][0]
        place = 0
        for at in range(context):
            if at >= len(here):
                assert (ids[at], targets[at]) == (257, IGNORED)
                continue
            document, id = here[at]
            place = 0 if at and here[at - 1][0] != document else place
            follows = at + 1 < len(here) and here[at + 1][0] == document
            expected = (id, here[at + 1][1] if follows else IGNORED, place, document - first)
            assert (ids[at], targets[at], positions[at], documents[at]) == expected
            place += 1


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Three sources of unequal size and weight, in many small shards, and some validation."""
    texts = {"one": some_documents(60, 1), "two": some_documents(15, 2), "three": some_documents(90, 3)}
    weights = {"one": 2.0, "two": 1.5, "three": 0.5}
    where = tmp_path_factory.mktemp("mixed")
    return make_data(where, texts, weights=weights, validation=some_documents(9, 4), max_bytes=900)


@pytest.mark.parametrize("n_ranks", [2, 3, 4, 6, 12])
def test_ranks_share_the_rows_of_a_step(mixed, n_ranks):
    whole = Batches(mixed, 32, rows_per_step=12, seed=3).step(7)
    parts = [Batches(mixed, 32, rows_per_step=12, seed=3).step(7, rank, n_ranks) for rank in range(n_ranks)]
    for name in ("ids", "targets", "positions", "documents", "samples"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    assert sum(part.n_trained for part in parts) == whole.n_trained


def test_another_process_gets_the_same(mixed):
    code = (
        "import hashlib, sys; from pathlib import Path; from camelid.data.batches import Batches\n"
        "batches = Batches(Path(sys.argv[1]), 32, 12, 3)\n"
        "print(hashlib.sha256(batches.step(7).ids.tobytes()).hexdigest(), batches.fingerprint())"
    )
    run = [sys.executable, "-c", code, str(mixed)]
    prints = {subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(prints) == 1
    assert Batches(mixed, 32, 12, 3).fingerprint() in prints.pop()


def test_provenance_gives_the_tokens_of_the_batch(mixed):
    batches = Batches(mixed, 32, rows_per_step=8, seed=3)
    for step in range(5):
        batch = batches.step(step)
        for ids, pieces in zip(batch.ids, batches.rows_of(step), strict=True):
            assert TOKENIZER.decode(ids.tolist()) == "".join(piece["text"] for piece in pieces)
            assert sum(piece["stop"] - piece["start"] for piece in pieces) in (32, np.count_nonzero(ids != 257) + 1)
            for piece in pieces:
                assert piece["id"] == f"{piece['source']}/{piece['id'].split('/')[1]}"
                assert piece["url"].startswith(f"https://{piece['source']}.example/")
                assert 0 <= piece["start"] < piece["stop"] <= piece["tokens"]


def test_sources_come_in_their_shares(mixed):
    batches = Batches(mixed, 32, rows_per_step=64, seed=3)
    seen = Counter(row[0]["source"] for step in range(16) for row in batches.rows_of(step))
    assert seen == {"one": 512, "two": 384, "three": 128}


def test_validation_is_held_out_and_once(mixed):
    batches = Batches(mixed, 32, rows_per_step=4, seed=3, validation=True)
    texts = "".join(piece["text"] for step in range(batches.n_steps) for row in batches.rows_of(step) for piece in row)
    assert texts == "".join(some_documents(9, 4))
    last = batches.step(batches.n_steps - 1)
    filling = last.samples == -1
    assert filling.sum() == -batches.n_rows % 4
    assert (last.targets[filling] == IGNORED).all()
    with pytest.raises(OptionError, match="there are steps 0 to"):
        batches.step(batches.n_steps)


def test_fingerprints_tell_what_differs(mixed, tmp_path):
    one = Batches(mixed, 32, 8, 3)
    others = [Batches(mixed, 33, 8, 3), Batches(mixed, 32, 4, 3), Batches(mixed, 32, 8, 4)]
    others += [Batches(mixed, 32, 8, 3, validation=True), Batches(make_data(tmp_path), 32, 8, 3)]
    assert len({batches.fingerprint() for batches in [one, *others]}) == 6


def test_what_cannot_be_is_refused(mixed, tmp_path):
    with pytest.raises(OptionError, match="divided among 5 ranks"):
        Batches(mixed, 32, 12, 0).step(0, 0, 5)
    with pytest.raises(OptionError, match="context: must be 1 or more"):
        Batches(mixed, 0, 12, 0)
    with pytest.raises(OptionError, match="there are steps 0"):
        Batches(mixed, 32, 12, 0).step(-1)
    empty = make_data(tmp_path, {"made": ["a"], "none": []})
    with pytest.raises(OptionError, match="source none has no tokens"):
        Batches(empty, 32, 4, 0)


def test_a_manifest_that_was_changed_is_refused(tmp_path):
    data = make_data(tmp_path)
    path = data / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"weight": 1.0', '"weight": 2.0'), encoding="utf-8")
    with pytest.raises(VerifyError, match="changed after it was written"):
        read_manifest(data)


def test_another_tokenizer_is_refused(tmp_path):
    data = make_data(tmp_path)
    (data / "tokenizer" / "tokenizer.json").write_text(byte_tokenizer(300).to_json(), encoding="utf-8")
    with pytest.raises(VerifyError, match="not the tokenizer"):
        Batches(data, 32, 4, 0).rows_of(0)
