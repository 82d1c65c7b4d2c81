"""The stages that Flow shows are those of the model: same numbers as reference, engine and sampling."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import camelid
from camelid.chat.activations import Flow, likeliest
from camelid.chat.llama import Llama
from camelid.chat.sampling_trace import follow, outcome
from camelid.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend, has_cpu
from camelid.engine.sampling import steps as sampling
from camelid.errors import OptionError
from camelid.model import reference
from camelid.model.rope import rope_table
from tests.tokens.vocabularies import small_llama2
from tests.weights.models import tiny_weights

DECK = "The best thing about AI is its ability to"
RAW = camelid.SamplingParams(temperature=1.0, top_p=1.0)


@pytest.fixture(scope="module")
def flow(llama):
    return Flow(llama)


@pytest.fixture(scope="module")
def tiny():
    """A tiny model of quantised weights on the C++ backend or, where it is not built, NumPy's."""
    tokenizer = small_llama2(*(f"<|{n}|>" for n in range(31)))
    weights, options = tiny_weights("Q8_0", load_tokenizer=lambda: tokenizer), EngineOptions()
    return Llama(weights, Engine(choose_backend(weights, "cpu" if has_cpu() else "numpy", options), options))


IDS = [5, 300, 17, 17, 200, 3, 42, 99]


@pytest.mark.slow
def test_the_table_is_the_models_own(llama, flow):
    ids = llama.prompt_ids(DECK)
    seen = flow.read(ids)
    table = llama.next(DECK, 10)
    found = outcome(seen.logits, RAW, ids, n=10)
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-9)
    assert [row.id for row in found.rows] == [row.id for row in table.tokens]
    np.testing.assert_allclose(
        [row.probability for row in found.rows], [row.probability for row in table.tokens], atol=1e-6
    )
    assert found.rows[0].id == llama.generate(DECK, temperature=0, max_tokens=1).ids[0]
    assert sum(row.probability for row in found.rows) + found.others[0] == pytest.approx(1)


def test_the_last_layers_lens_is_the_final_distribution(llama, flow):
    seen = flow.read(llama.prompt_ids(DECK))
    for position in (0, 3, len(seen.ids) - 1):
        last = flow.lens(seen, position)[-1]
        probabilities = reference.softmax(flow.read(seen.ids[: position + 1]).logits.astype(np.float64))
        assert [id for id, _ in last.top] == likeliest(probabilities, 5).tolist()
        np.testing.assert_allclose(
            [share for _, share in last.top], probabilities[likeliest(probabilities, 5)], atol=1e-5
        )
        assert last.entropy == pytest.approx(-(probabilities * np.log2(probabilities)).sum(), abs=1e-3)


def test_attention_rows_are_causal_distributions_and_the_references(tiny):
    flow, config = Flow(tiny), tiny.config
    tensors = {name: tensor.array() for name, tensor in tiny.weights.tensors.items()}
    shown: dict[tuple[str, int], np.ndarray] = {}
    cos, sin = rope_table(config, np.arange(len(IDS)))
    reference.forward(
        config,
        tensors,
        np.array(IDS),
        cos,
        sin,
        observe=lambda what, layer, value: shown.update({(what, layer): value}),
    )
    seen = flow.read(IDS)
    np.testing.assert_array_equal(seen.embeddings(), tensors["embed_tokens"][IDS])
    for layer in range(config.n_layers):
        weights = seen.attention(layer)
        np.testing.assert_array_equal(weights, shown["attention_weights", layer])
        np.testing.assert_allclose(seen.last_looks(layer), weights[:, -1], atol=1e-6)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert not weights[:, np.triu(np.ones((len(IDS), len(IDS)), bool), 1)].any()
        for position, lens in enumerate(flow.lens(seen, at)[layer] for at in range(len(IDS))):
            assert lens.attention == pytest.approx(np.linalg.norm(shown["attention", layer][position]), rel=1e-5)
            assert lens.feed_forward == pytest.approx(np.linalg.norm(shown["feed_forward", layer][position]), rel=1e-5)
            assert lens.stream == pytest.approx(np.linalg.norm(shown["residual", layer][position]), rel=1e-5)


def test_one_token_more_gives_what_reading_all_gives(tiny):
    stepped, whole = Flow(tiny), Flow(tiny).read(IDS)
    for end in range(3, len(IDS) + 1):
        seen = stepped.read(IDS[:end])
    assert [len(part.embedding) for part in seen.chain()] == [3, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(seen.logits, whole.logits, atol=1e-5)
    np.testing.assert_array_equal(seen.embeddings(), whole.embeddings())
    for layer in range(tiny.config.n_layers):
        np.testing.assert_allclose(seen.attention(layer), whole.attention(layer), atol=1e-6)
    for position in range(len(IDS)):
        one, other = stepped.lens(seen, position), Flow(tiny).lens(whole, position)
        assert [lens.top[0][0] for lens in one] == [lens.top[0][0] for lens in other]


def test_branches_share_what_lies_before_them(tiny):
    flow = Flow(tiny)
    root = flow.read(IDS[:4])
    left, right = flow.read([*IDS[:4], 7]), flow.read([*IDS[:4], 8])
    assert left.before is root
    assert right.before is root
    assert flow.read(IDS[:4]) is root
    assert not np.array_equal(left.logits, right.logits)


def test_memory_stays_within_bounds_and_nothing_is_forgotten_wrongly(tiny):
    one = Flow(tiny).read(IDS).nbytes
    flow = Flow(tiny, kept_passes=3 * one)
    expected = {first: Flow(tiny).read([first, *IDS[1:]]).logits for first in range(6)}
    for first in (0, 1, 2, 3, 4, 5, 0, 5, 2):
        np.testing.assert_array_equal(flow.read([first, *IDS[1:]]).logits, expected[first])
        assert sum(held.nbytes for held in flow._passes.values()) <= 3 * one
    grown = flow.read([2, *IDS[1:], 9])
    assert grown.before is not None
    assert grown.before.ids in flow._passes


def test_weights_kept_and_weights_made_each_time_are_the_same(tiny):
    kept, made = Flow(tiny), Flow(tiny, kept_weights=0)
    np.testing.assert_array_equal(kept.read(IDS).logits, made.read(IDS).logits)
    assert kept.lens(kept.read(IDS), 7) == made.lens(made.read(IDS), 7)


def test_the_trace_says_which_step_removed_a_token(llama, flow):
    ids = llama.prompt_ids(DECK)
    params = camelid.SamplingParams(temperature=0.8, top_k=6, top_p=0.7, min_p=0.3)
    found = outcome(flow.read(ids).logits, params, ids, n=10)
    np.testing.assert_array_equal(found.probabilities, sampling.distribution(flow.read(ids).logits, params, ids))
    assert [step.name for step in found.steps] == ["all", "temperature", "top_k", "top_p", "min_p", "draw"]
    left = [step.n_left for step in found.steps[:-1]]
    assert left == sorted(left, reverse=True)
    assert left[2] == 6
    assert sum(row.left for row in found.rows) == pytest.approx(1)
    for row in found.rows:
        assert (row.fell is None) == (row.left > 0)
    fell = [row.fell for row in found.rows]
    assert fell.count(None) == left[-1]
    assert fell[6:] == ["top_k"] * 4
    order = {"min_p": 0, "top_p": 1, "top_k": 2}
    removed = [order[name] for name in fell if name]
    assert removed == sorted(removed)


def test_steps_are_followed_one_by_one():
    logits = np.array([2.0, 1.0, 0.0, -1.0, 0.5], np.float32)
    steps = follow(logits, camelid.SamplingParams(temperature=2.0, top_k=3, top_p=0.9), [])
    assert [step.name for step in steps] == ["all", "temperature", "top_k", "top_p", "draw"]
    assert [step.n_left for step in steps] == [5, 5, 3, 3, 1]
    np.testing.assert_array_equal(steps[1].logits, logits / 2)
    assert steps[2].note == "top_k 3: removes 2"


@pytest.mark.slow
def test_a_draw_falls_where_the_row_says(llama, flow):
    ids = llama.prompt_ids(DECK)
    for seed in range(20):
        params = camelid.SamplingParams(temperature=0.7, top_k=5, top_p=1.0, seed=seed)
        found = outcome(flow.read(ids).logits, params, ids, n=5)
        chosen = found.draw(params, 0)
        assert chosen.id == llama.generate(DECK, params, max_tokens=1).ids[0]
        row = next(row for row in found.rows if row.id == chosen.id)
        assert row.begins <= chosen.number < row.begins + row.left
        assert chosen.probability == row.left


def test_penalties_see_what_was_written(tiny):
    params = camelid.SamplingParams(temperature=1, top_p=1, presence_penalty=5)
    logits = Flow(tiny).read(IDS).logits
    written = outcome(logits, params, IDS[:6], IDS[6:])
    np.testing.assert_array_equal(written.probabilities, sampling.distribution(logits, params, IDS[:6], IDS[6:]))
    assert written.probabilities[IDS[7]] < outcome(logits, params, IDS).probabilities[IDS[7]]


def test_greedy_leaves_one(tiny):
    params = camelid.SamplingParams(temperature=0)
    found = outcome(Flow(tiny).read(IDS).logits, params, IDS)
    assert [row.fell for row in found.rows] == [None, *["greedy"] * 9]
    chosen = found.draw(params, 0)
    assert chosen.id == found.rows[0].id
    assert chosen.number is None
    assert found.take(3).probability == 0


@pytest.mark.parametrize(
    ("ids", "words"),
    [([], "empty"), ([320], "outside the vocabulary"), ([1] * 9, "9 tokens; of this model the flow shows up to 8")],
)
def test_mistakes_are_told(tiny, ids, words):
    with pytest.raises(OptionError, match=words):
        Flow(tiny, longest=8).read(ids)


def test_a_model_of_many_numbers_gets_shorter_prompts(tiny):
    per_id = 4 * tiny.config.n_layers * (2 * tiny.config.dim + 2 * tiny.config.kv_dim)
    assert Flow(tiny, kept_passes=20 * per_id).longest == 20


def test_runs_beside_the_engine(tiny):
    """Both read the same weights; neither changes what the other writes."""
    alone = tiny.generate(IDS, temperature=0, max_tokens=40).ids
    logits = Flow(tiny).read(IDS).logits
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as pool:
            passes = pool.submit(lambda: [Flow(tiny).read(IDS).logits for _ in range(20)])
            beside = [tiny.generate(IDS, temperature=0, max_tokens=40).ids for _ in range(3)]
            seen = passes.result()
    finally:
        sys.setswitchinterval(interval)
    assert beside == [alone] * 3
    for again in seen:
        np.testing.assert_array_equal(again, logits)
