"""A result whose items partly stand in the training data: told, kept, and told again."""

from __future__ import annotations

import json

import pytest

from camelid.cli.flags import run_verb
from camelid.errors import FormatError, MissingError
from camelid.evals.contamination import read_contamination, training_of
from camelid.evals.plan import make_plan
from camelid.evals.run import evaluate
from camelid.evals.sources import open_source
from camelid.evals.tasks import find_task
from tests.data.made import make_data, some_documents
from tests.evals.asking import RuleModel, write_mmlu


def prompts_of(path):
    """Each item's prompt without shots, by id."""
    task = find_task("mmlu")
    plan = make_plan(task, open_source(path, task.splits.items), n_shots=0)
    return {item.id: plan.request(number).context for number, item in enumerate(plan.items)}


@pytest.fixture
def leaked(tmp_path):
    """MMLU's form, and a run that has read the whole of three of its items and half of another."""
    items = write_mmlu(tmp_path / "mmlu.tar.gz")
    prompts = prompts_of(items)
    first, second, third, fourth, *_ = prompts
    texts = [*some_documents(10), *(f"Well: {prompts[name]} A" for name in (first, second, third))]
    make_data(tmp_path / "run", [*texts, prompts[fourth][: len(prompts[fourth]) // 2]])
    return items, tmp_path / "run", (first, second, third, fourth)


def measured(items, run, **more):
    return evaluate(RuleModel(), "mmlu", data=items, shots=0, training=run, **more)


def test_what_was_read_is_told(leaked, tmp_path):
    items, run, (*whole, half) = leaked
    result = measured(items, run, out=tmp_path / "results")
    found = result.contamination
    assert [found.shares[name] for name in whole] == [1.0] * 3
    assert 0.4 < found.shares[half] < 0.8
    subsets = found.subsets["acc"]
    clean, not_clean, not_dirty, dirty = (subsets[name] for name in ("clean", "not clean", "not dirty", "dirty"))
    assert clean.n + not_clean.n == not_dirty.n + dirty.n == result.n
    assert dirty.n >= 3
    scores = {item["id"]: item["scores"]["acc"] for item in result.items}
    dirty_scores = [scores[name] for name, share in found.shares.items() if share >= 0.8]
    assert dirty.value == pytest.approx(sum(dirty_scores) / dirty.n)
    assert read_contamination(result.folder) == found
    again = measured(items, run, out=tmp_path / "results")
    assert (again.metrics, again.contamination) == (result.metrics, found)


def test_other_training_data_are_looked_through_anew(leaked, tmp_path):
    items, run, _ = leaked
    before = measured(items, run, out=tmp_path / "results").contamination
    other = make_data(tmp_path / "other", some_documents(10)).parent
    after = measured(items, other / "data", out=tmp_path / "results").contamination
    assert before.training != after.training
    assert max(after.shares.values()) < 1
    assert (after.subsets["acc"]["dirty"].n, after.subsets["acc"]["dirty"].value) == (0, None)
    assert measured(items, run).contamination == before  # and without a folder


def test_no_data_is_an_error(leaked, tmp_path):
    items, _, _ = leaked
    with pytest.raises(MissingError):
        measured(items, tmp_path / "nowhere")


def test_a_damaged_file_is_one_line(leaked, tmp_path):
    items, run, _ = leaked
    result = measured(items, run, out=tmp_path / "results")
    (result.folder / "contamination.json").write_text("{}")
    with pytest.raises(FormatError, match="evaluate again"):
        read_contamination(result.folder)


def test_the_data_of_a_checkpoint_are_those_of_its_run(tmp_path):
    run = make_data(tmp_path / "run").parent
    step = run / "pretrain" / "step2-tokens64"
    step.mkdir(parents=True)
    assert training_of(step) is None  # not complete
    (step / "checkpoint.json").write_text("{}")
    (run / "pretrain" / "latest").symlink_to(step.name)
    assert training_of(run / "pretrain" / "latest") == (run / "data").resolve()
    assert training_of(tmp_path) is None


def test_the_verb_shows_it(leaked, smollm2_path, monkeypatch, capsys, tmp_path):
    items, run, _ = leaked
    monkeypatch.chdir(tmp_path)
    given = ["mmlu", "--model", str(smollm2_path), "--data", str(items), "--shots", "0", "--training", str(run)]
    assert run_verb("eval", [*given, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["results"]
    assert told["contamination"]["subsets"]["acc"]["dirty"]["n"] >= 3
    assert run_verb("eval", given) == 0
    shown = capsys.readouterr().out
    assert "in the training data" in shown
    assert "not dirty" in shown
