"""Packing: every conversation whole and once an epoch, the same for any number of ranks; pairs and prompts likewise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.data.batches import IGNORED, Batches
from camelid.data.chats.best_fit import best_fit
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.order import EpochOrder
from camelid.data.chats.pairs import Pairs
from camelid.data.chats.prepare import prepare_chats
from camelid.data.chats.prompts import Prompts
from camelid.data.chats.records import to_messages
from camelid.data.chats.rows import ConversationRows
from camelid.errors import OptionError
from tests.data.chats.chat_models import chatml, conversations, write_lines

CONTEXT = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two sources of conversations, the second taken twice."""
    folder = tmp_path_factory.mktemp("chats")
    for name, seed in (("one", 1), ("two", 2)):
        lines = [{"id": f"{name}{i}", "messages": each} for i, each in enumerate(conversations(40, seed, most_turns=2))]
        write_lines(folder / f"{name}.jsonl", lines)
    tables = [{"name": name, "kind": "jsonl", "path": f"{name}.jsonl", "licence": "CC0-1.0"} for name in ("one", "two")]
    tables[1]["weight"] = 2.0
    prepare_chats(tables, folder / "data", "conversations", chatml(), CONTEXT, base=folder, workers=1)
    return folder / "data"


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 80))
def test_best_fit_is_the_plain_algorithm(lengths, context):
    rows = best_fit(np.array(lengths, np.int64), context)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    used: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, full in enumerate(used) if full + length <= context]
        if fitting:
            used[max(fitting, key=lambda row: used[row])] += length
        else:
            used.append(length)
    assert sorted(sum(lengths[number] for number in row) for row in rows) == sorted(used)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0])), min_size=1, max_size=3),
    st.integers(0, 2**31),
)
def test_an_epoch_takes_each_record_as_often_as_its_weight(sources, seed):
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    if not sum(sizes):
        with pytest.raises(OptionError, match="nothing to learn"):
            EpochOrder(seed, sizes, weights)
        return
    order = EpochOrder(seed, sizes, weights)
    whole = Counter(order.source(record) for epoch in range(4) for record in order.epoch(epoch).tolist())
    for source, (size, weight) in enumerate(sources):
        assert all(whole[source, number] == 4 * weight for number in range(size))
    assert order.start(4) == sum(whole.values())
    places = order.places(0, order.start(3))
    assert places == [(epoch, record) for epoch in range(3) for record in order.epoch(epoch).tolist()]
    if places:
        assert order.places(len(places) // 2, len(places)) == places[len(places) // 2 :]


def learned_of(rows: ConversationRows, batch) -> Counter:
    """Each conversation's ids with the ids of it that are targets."""
    found: Counter = Counter()
    for ids, targets, positions, documents in zip(
        batch.ids, batch.targets, batch.positions, batch.documents, strict=True
    ):
        for number in range(documents.max() + 1):
            at = np.flatnonzero(documents == number)
            assert (np.diff(at) == 1).all()
            assert positions[at].tolist() == list(range(len(at)))
            learned = targets[at]
            assert ((learned[:-1] == IGNORED) | (learned[:-1] == ids[at][1:])).all()
            assert learned[-1] == IGNORED, "the last token predicts nothing of another conversation"
            if (learned != IGNORED).any():
                found[tuple(ids[at].tolist()), tuple(learned[learned != IGNORED].tolist())] += 1
    return found


def test_every_learned_token_once_an_epoch(data):
    rows = ConversationRows(data, CONTEXT, 1, seed=7)
    wanted: Counter = Counter()
    for source, times in zip(rows.sources, (1, 2), strict=True):
        for number in range(source.n_documents):
            ids, mask = source.document(number)
            wanted[tuple(ids.tolist()), tuple(ids[mask == 1].tolist())] += times
    for epoch in range(2):
        found: Counter = Counter()
        for step in range(epoch * rows.n_steps, (epoch + 1) * rows.n_steps):
            found += learned_of(rows, rows.step(step))
        assert found == wanted
    order = [[piece["id"] for row in rows.rows_of(step) for piece in row] for step in range(2 * rows.n_steps)]
    assert order[: rows.n_steps] != order[rows.n_steps :], "each epoch has an order of its own"
    least = sum(len(ids) * times for (ids, _), times in wanted.items()) / CONTEXT
    assert rows.n_rows <= 11 / 9 * least + 1


def test_ranks_share_a_step_and_the_seed_alone_decides(data):
    rows, other = ConversationRows(data, CONTEXT, 6, 7), ConversationRows(data, CONTEXT, 6, 8)
    for step in (0, 3, rows.n_steps + 1):
        whole = rows.step(step)
        for n_ranks in (2, 3, 6):
            parts = [ConversationRows(data, CONTEXT, 6, 7).step(step, rank, n_ranks) for rank in range(n_ranks)]
            for name in ("ids", "targets", "positions", "documents", "samples"):
                assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    assert not np.array_equal(rows.step(0).ids, other.step(0).ids)
    assert rows.fingerprint() != other.fingerprint()
    assert rows.fingerprint() == ConversationRows(data, CONTEXT, 6, 7).fingerprint()
    with pytest.raises(OptionError, match="cannot be divided"):
        rows.step(0, 0, 4)
    with pytest.raises(OptionError, match="raise it"):
        ConversationRows(data, 20, 1, 0)
    with pytest.raises(OptionError, match="holds conversations"):
        Batches(data, 16, 1, 0)
    with pytest.raises(OptionError, match="holds conversations, and preferences"):
        Pairs(data, 1, 0)


def test_provenance_is_that_of_the_row(data):
    rows = ConversationRows(data, CONTEXT, 2, 7)
    batch, told = rows.step(5), rows.rows_of(5)
    for ids, targets, pieces in zip(batch.ids, batch.targets, told, strict=True):
        at = 0
        for piece in pieces:
            part = ids[at : at + piece["stop"]]
            assert piece["text"] == rows.tokenizer.decode(part.tolist())
            assert piece["learned"] == int((targets[at : at + piece["stop"]] != IGNORED).sum())
            assert piece["licence"] == "CC0-1.0"
            assert piece["id"].startswith(piece["source"])
            at += piece["stop"]


def test_fractions_of_a_source_and_rows_of_different_epochs(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"messages": each} for each in conversations(31, 5, most_turns=3)])
    table = {"kind": "jsonl", "path": "a.jsonl", "weight": 0.5}
    prepare_chats([table], tmp_path / "data", "conversations", chatml(), 400, base=tmp_path, workers=1)
    rows = ConversationRows(tmp_path / "data", 400, 3, 1)
    seen = Counter(piece["id"] for step in range(60) for row in rows.rows_of(step) for piece in row)
    assert len(seen) == 31
    assert max(seen.values()) - min(seen.values()) <= 1
    fresh = ConversationRows(tmp_path / "data", 400, 3, 1)
    assert np.array_equal(fresh.step(59).ids, rows.step(59).ids)


def test_validation_comes_in_order_and_once(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"id": i, "messages": each} for i, each in enumerate(conversations(60, 6))])
    options = {"sources": [{"name": "a", "kind": "jsonl", "path": "a.jsonl"}], "validation": 0.3}
    made = prepare_chats(ChatDataOptions(**options), tmp_path / "data", "conversations", chatml(), 600, base=tmp_path)
    held, rows = made.manifest.sources[0].validation_documents, ConversationRows(tmp_path / "data", 600, 4, 0, True)
    training = ConversationRows(tmp_path / "data", 600, 4, 0)
    assert 5 < held < 40
    ids = [piece["id"] for step in range(rows.n_steps) for row in rows.rows_of(step) for piece in row]
    assert len(ids) == len(set(ids)) == held
    kept = {piece["id"] for step in range(training.n_steps) for row in training.rows_of(step) for piece in row}
    assert not kept & set(ids)
    assert len(kept) == 60 - held
    assert rows.step(rows.n_steps - 1).samples[-1] == (-1 if rows.n_rows % 4 else rows.n_rows - 1)
    with pytest.raises(OptionError, match="there are steps 0 to"):
        rows.step(rows.n_steps)


def test_pairs_come_back_as_they_were(tmp_path):
    model, lines = chatml(), []
    for number, messages in enumerate(conversations(25, 8, most_turns=3)):
        safe = {"chosen_safe": True, "rejected_safe": number % 2 == 0, "grade": "better"} if number % 3 else {}
        answers = {"chosen": [messages[-1]], "rejected": [{"role": "assistant", "content": f"No {number}."}]}
        lines.append({"id": str(number), "prompt": messages[:-1], **answers, **safe, "level": number})
    write_lines(tmp_path / "a.jsonl", lines)
    table = {"kind": "jsonl", "path": "a.jsonl", "keep_fields": ["level"], "licence": "MIT"}
    prepare_chats([table], tmp_path / "data", "preferences", model, 600, base=tmp_path, workers=1)
    pairs = Pairs(tmp_path / "data", 5, 3)
    assert (pairs.n_pairs, pairs.n_steps) == (25, 5)
    seen = [pair for step in range(5) for pair in pairs.step(step)]
    assert sorted(int(pair.about["id"]) for pair in seen) == list(range(25))
    for pair in seen:
        number = int(pair.about["id"])
        assert pair.about["level"] == number
        assert pair.about["licence"] == "MIT"
        labels = ("better", True, number % 2 == 0) if number % 3 else (None, None, None)
        assert (pair.grade, pair.chosen_safe, pair.rejected_safe) == labels
        for example, said in ((pair.chosen, lines[number]["chosen"]), (pair.rejected, lines[number]["rejected"])):
            assert model.tokenizer.decode(example.ids[example.learned].tolist()) == said[0]["content"]
            whole = [*lines[number]["prompt"], *said]
            rendered = model.chat_format.render(model.tokenizer, to_messages(whole), add_generation_prompt=False)
            assert example.ids.tolist() == rendered.ids
    parts = [pair.about["id"] for rank in range(5) for pair in Pairs(tmp_path / "data", 5, 3).step(7, rank, 5)]
    assert parts == [pair.about["id"] for pair in pairs.step(7)]
    again = [pair for step in range(5) for pair in pairs.step(step)]
    told_before = [(pair.about, pair.grade, pair.rejected_safe) for pair in seen]
    assert [(pair.about, pair.grade, pair.rejected_safe) for pair in again] == told_before, "a second look is the same"
    told = pairs.rows_of(2)
    assert [row[0]["id"] for row in told] == [pair.about["id"] for pair in pairs.step(2)]
    assert [piece["answer"] for piece in told[0]] == ["chosen", "rejected"]


def test_prompts_come_back_as_they_were(tmp_path):
    lines = [{"question": f"{i} + {i}?", "answer": f"#### {2 * i}", "safety": i % 2 == 0} for i in range(11)]
    write_lines(tmp_path / "a.jsonl", lines)
    prepare_chats([{"kind": "jsonl", "path": "a.jsonl"}], tmp_path / "data", "prompts", chatml(), 99, base=tmp_path)
    prompts = Prompts(tmp_path / "data", 4, 0)
    assert (prompts.n_prompts, prompts.n_steps) == (11, 3)
    seen = [prompt for step in range(3) for prompt in prompts.step(step)][:11]
    for prompt in seen:
        asked = prompt.messages[0]["content"]
        line = next(line for line in lines if line["question"] == asked)
        assert (prompt.about["answer"], prompt.about["safety"]) == (line["answer"], line["safety"])
        text = f"user\n{asked}\nassistant\n"
        assert prompts.tokenizer.decode(prompt.ids.tolist()) == text
    assert len({prompt.messages[0]["content"] for prompt in seen}) == 11
    again = [prompt for step in range(3) for prompt in prompts.step(step)][:11]
    assert [(each.messages, each.about) for each in again] == [(each.messages, each.about) for each in seen]
    assert [row[0]["text"] for row in prompts.rows_of(0)] == [
        prompts.tokenizer.decode(prompt.ids.tolist()) for prompt in prompts.step(0)
    ]
