"""`camelid inspect` tells what a run has really read, and how it stands."""

from __future__ import annotations

import json

import pytest

from camelid.cli import main
from camelid.data.batches import IGNORED, Batches
from camelid.errors import MissingError, OptionError, VerifyError
from camelid.recipe import read_recipe
from camelid.train.report.inspect import documents_of, open_batches, overview
from camelid.train.runs import Run
from tests.data.made import make_data, some_documents

STEPS, CONTEXT, ROWS = 4, 32, 6

RECIPE = f"""
name = "small"
seed = 5
[model]
dim = 16
n_layers = 1
n_heads = 2
ffn_dim = 16
[pretrain]
steps = {STEPS}
batch_tokens = {CONTEXT * ROWS}
micro_rows = 2
context = {CONTEXT}
warmup_steps = 1
precision = "fp32"
compile = false
log_to = ["tensorboard"]
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, and the ids and targets that its forward passes really saw, step by step."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensorboardX")
    from camelid.train import mixed_precision
    from camelid.train.parallel import Parallel
    from tests.train.ranks import steps_of

    folder = tmp_path_factory.mktemp("runs") / "small"
    make_data(folder, {"one": some_documents(30), "two": some_documents(20, seed=1)}, weights={"two": 2.0})
    (folder.parent / "small.toml").write_text(RECIPE)
    seen: list[list[list[int]]] = [[]]
    real = mixed_precision.LlamaTorch.forward

    def forward(self, ids, *rest):
        if torch.is_grad_enabled():
            seen[-1].extend(ids.tolist())
        return real(self, ids, *rest)

    with pytest.MonkeyPatch.context() as patch, Parallel() as parallel:
        patch.setattr(mixed_precision.LlamaTorch, "forward", forward)
        for _ in steps_of(read_recipe(folder.parent / "small.toml"), folder, parallel):
            seen.append([])
    return Run(folder / "pretrain"), seen[:-1]


@pytest.mark.slow
def test_the_documents_are_those_that_the_run_used(trained):
    run, seen = trained
    assert [len(rows) for rows in seen] == [ROWS] * STEPS
    tokenizer = open_batches(run)[0].tokenizer
    texts = {f"one/{n}": text for n, text in enumerate(some_documents(30))}
    texts |= {f"two/{n}": text for n, text in enumerate(some_documents(20, seed=1))}
    for number, rows in enumerate(seen, 1):
        found = documents_of(run, number)
        assert found.trained
        for ids, (_, documents) in zip(rows, found.rows, strict=True):
            again: list[int] = []
            for document in documents:
                whole = [*tokenizer.encode(texts[document["id"]], bos=True), tokenizer.eos_id]
                again += whole[document["start"] : document["stop"]]
                assert document["text"] == tokenizer.decode(whole[document["start"] : document["stop"]])
                assert document["url"] == f"https://{document['source']}.example/{document['id'].split('/')[1]}"
                assert document["licence"] == "CC0-1.0"
            filling = [tokenizer.eos_id] * (CONTEXT - len(again))
            assert ids == again + filling


def test_steps_and_rows_that_are_not_there(trained):
    run, _ = trained
    assert documents_of(run, 2, 3).rows == [documents_of(run, 2).rows[3]]
    for step, row, part in ((0, None, "steps 1 to 4"), (5, None, "steps 1 to 4"), (1, 6, "rows 0 to 5")):
        with pytest.raises(OptionError, match=part):
            documents_of(run, step, row)


def test_other_data_is_not_told_as_what_was_read(trained, tmp_path):
    run, _ = trained
    make_data(tmp_path / "small", some_documents(7, seed=3))
    copy = tmp_path / "small" / "pretrain"
    copy.mkdir()
    for name in ("metrics.jsonl", "../recipe.toml"):
        (copy / name).write_bytes((run.folder / name).read_bytes())
    assert not (copy / "../recipe.toml").is_symlink()
    documents_of(Run(copy), 1)  # nothing is on record yet that would contradict
    kept = run.checkpoints()[-1]
    (copy / kept.name).mkdir()
    (copy / kept.name / "checkpoint.json").write_bytes((kept.path / "checkpoint.json").read_bytes())
    with pytest.raises(VerifyError, match=r"not what .* was trained on"):
        documents_of(Run(copy), 1)
    (copy / "../recipe.toml").unlink()
    with pytest.raises(MissingError, match="recipe"):
        documents_of(Run(copy), 1)


def test_the_overview(trained):
    run, _ = trained
    told = overview(run)
    assert (told["run"], told["state"], told["step"], told["steps"]) == ("small/pretrain", "done", STEPS, STEPS)
    assert [source["documents"] for source in told["sources"]] == [30, 20]
    assert told["checkpoints"][-1]["tokens"] == STEPS * ROWS * CONTEXT
    assert 0 < told["unigram_entropy"] < 6
    assert json.loads(json.dumps(told)) == told
    assert list((run.folder / "tensorboard").glob("events*"))  # as the recipe asks


def test_the_verb(trained, capsys):
    run, _ = trained

    def said(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["inspect", str(run.folder.parent), *arguments])
        return end.value.code, capsys.readouterr()

    status, text = said()
    assert (status, "small/pretrain, done" in text.out, "30 documents" in text.out) == (0, True, True)
    status, text = said("--step", "2", "--row", "1")
    document = documents_of(run, 2, 1).rows[0][1][0]
    assert status == 0
    assert document["text"] in text.out
    assert document["id"] in text.out
    assert text.out.count("row ") == 1
    status, text = said("--step", "2", "--json")
    assert json.loads(text.out)["rows"][1]["documents"][0] == document
    assert said("--row", "1")[0] == 2
    assert said("--step", "99")[0] == 2


def test_rows_that_are_inspected_are_those_of_the_batches(trained):
    """The batch itself, targets too, is what the documents give: the first token of a document is nobody's target."""
    run, _ = trained
    batches, options = open_batches(run)
    assert isinstance(batches, Batches)
    assert options.rows == ROWS
    batch = batches.step(0)
    for targets, (_, documents) in zip(batch.targets, documents_of(run, 1).rows, strict=True):
        begins = sum(document["start"] == 0 for document in documents[1:])
        assert (targets == IGNORED).sum() >= begins
