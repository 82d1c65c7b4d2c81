"""camelid as a model of lm-eval gives what lm-eval's own `hf` model gives for the same weights."""

from __future__ import annotations

import random

import pytest

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance  # noqa: E402

from camelid.errors import ContextError, OptionError  # noqa: E402
from camelid.evals.lm_eval_model import CamelidLM, run_tasks  # noqa: E402
from camelid.tokens.templates.message import Message  # noqa: E402

WORDS = [
    "the",
    "a",
    "llama",
    "and",
    "its",
    "grass",
    "hill",
    "walked",
    "over",
    "under",
    "slowly",
    "7",
    "12",
    ",",
    ".",
    ";",
    ":",
    "(",
    ")",
    "\n",
    "é",
    "山",
]


def instances(kind, *arguments):
    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


def some_text(generator, n):
    return " ".join(generator.choice(WORDS) for _ in range(n))


@pytest.fixture(scope="module")
def ours(llama):
    return CamelidLM(llama)


@pytest.fixture(scope="module")
def theirs(smollm2_path):
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=str(smollm2_path.parent), gguf_file=smollm2_path.name, dtype="float32", device="cpu", batch_size=4
    )


@pytest.mark.slow
def test_loglikelihoods_are_those_of_lm_evals_own_model(ours, theirs):
    generator = random.Random(1)
    pairs = [(some_text(generator, generator.randint(0, 40)), " " + some_text(generator, 6)) for _ in range(12)]
    pairs += [("Question: 1 + 1?\nAnswer: ", letter) for letter in "ABCD"] + [("", "The llama"), ("The ", "llama ate")]
    requests = instances("loglikelihood", *pairs)
    for (ours_sum, ours_greedy), (sum_, greedy) in zip(
        ours.loglikelihood(requests, disable_tqdm=True), theirs.loglikelihood(requests, disable_tqdm=True), strict=True
    ):
        assert ours_sum == pytest.approx(sum_, abs=1e-3)
        assert ours_greedy == greedy


@pytest.mark.slow
def test_a_document_is_read_in_windows_that_count_each_token_once(ours, theirs):
    requests = instances("loglikelihood_rolling", ("Llamas hum to each other.",), (some_text(random.Random(2), 60),))
    assert ours.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(
        theirs.loglikelihood_rolling(requests, disable_tqdm=True), abs=2e-3
    )


@pytest.mark.slow
def test_greedy_answers_end_before_their_stops(ours, theirs):
    prompts = ["The capital of France is", "1, 2, 3,", "Once upon a time"]
    choices = {"until": ["\n", "."], "max_gen_toks": 12, "do_sample": False}
    requests = instances("generate_until", *((prompt, choices) for prompt in prompts))
    assert ours.generate_until(requests, disable_tqdm=True) == theirs.generate_until(requests, disable_tqdm=True)


def test_a_conversation_as_text_gives_its_ids_again(ours):
    rows = [{"role": "user", "content": "Hello"}]
    text = ours.apply_chat_template(rows)
    assert text.endswith("<|im_start|>assistant\n")
    rendered = ours.llama.chat_format.render(ours.llama.tokenizer, [Message("user", "Hello")])
    assert ours.tok_encode(text) == rendered.ids
    with pytest.raises(OptionError, match="leave out --apply_chat_template"):
        ours.apply_chat_template([{"role": "user", "content": "<|im_end|>"}])


def test_what_lm_eval_asks_for_and_we_lack_is_refused_by_name(ours):
    requests = instances("generate_until", ("Hello", {"until": ["\n"], "num_beams": 4}))
    with pytest.raises(OptionError, match="'num_beams', which is not supported"):
        ours.generate_until(requests, disable_tqdm=True)
    requests = instances("generate_until", ("Hello", {"max_gen_toks": 10**6}))
    with pytest.raises(ContextError, match="leave no room"):
        ours.generate_until(requests, disable_tqdm=True)


def test_cut_texts_are_said(smollm2_path, caplog):
    ours = CamelidLM(str(smollm2_path), backend="cpu", context=64)
    long = "llama " * 80
    ((logprob, _),) = ours.loglikelihood(instances("loglikelihood", (long, " grass")), disable_tqdm=True)
    assert logprob < 0
    assert "1 of 1 texts are too long for the context and lost tokens on the left" in caplog.text


TASK = """
task: llamas
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [" yes", " no"]
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


@pytest.mark.slow
def test_lm_eval_measures_a_model_on_its_own_tasks(cpu_llama, tmp_path, monkeypatch):
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    items = tmp_path / "items.jsonl"
    items.write_text("".join(f'{{"question": "Are {n} llamas more than one?"}}\n' for n in range(2, 8)))
    (tmp_path / "llamas.yaml").write_text(TASK.format(path=items))
    manager = TaskManager(include_path=str(tmp_path))
    monkeypatch.setattr("camelid.evals.lm_eval_model.TaskManager", lambda: manager)
    (row,) = run_tasks(cpu_llama, "smollm2", ["llamas"], limit=4, shots=0)
    assert (row["task"], row["n"], row["shots"]) == ("lm-eval:llamas", 4, 0)
    right = [
        cpu_llama.loglikelihood(f"Are {n} llamas more than one?", " yes").logprob
        > cpu_llama.loglikelihood(f"Are {n} llamas more than one?", " no").logprob
        for n in range(2, 6)
    ]
    assert row["metrics"]["acc,none"]["value"] == sum(right) / 4
    with pytest.raises(OptionError, match="has no such task"):
        run_tasks(cpu_llama, "smollm2", ["no_such_task_anywhere"], None, None)
