"""The same steps under datatrove's local executor: the same bytes as `camelid prepare`; its MinHash keeps the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from camelid.data.datatrove import PrepareStep, Rules, steps
from camelid.data.document import Document
from camelid.data.manifest import read_manifest
from camelid.data.prepare import prepare
from camelid.errors import MissingError, OptionError
from camelid.recipe import read_recipe
from tests.data.made import some_documents
from tests.data.test_dedup import NOTHING, deduplicate

Theirs = pytest.importorskip("datatrove.data").Document
executor = pytest.importorskip("datatrove.executor.local")

RECIPE = """
name = "made"
[data]
validation = 0.1
rules = {pii = {}, gopher_quality = {min_words = 4, min_stop_words = 0}}
dedup = {paragraph = true}
decontaminate = {against = [{path = "tests.txt"}], shortest = 5, words = 5}
[[data.sources]]
name = "web"
kind = "jsonl"
path = "web.jsonl"
unit_bytes = 3000
[tokenizer]
vocab_size = 600
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    texts = some_documents(60, seed=11)
    texts[10] += "\n" + texts[4]
    texts[20], texts[30] = max(texts[8:20], key=len), "mail x.y@example.org"
    lines = [json.dumps({"text": text, "url": f"http://a.example/{n % 55}"}) for n, text in enumerate(texts)]
    (tmp_path / "web.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "tests.txt").write_text(" ".join(texts[7].split()[:6]) + "\n", encoding="utf-8")
    (tmp_path / "made.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "made.toml"


def run(step: PrepareStep, logs: Path, workers: int = 1) -> None:
    executor.LocalPipelineExecutor([step], step.tasks, workers, str(logs / step.name)).run()


def content(folder: Path) -> dict[str, bytes]:
    """What a data folder holds, but for what says when and where it was made."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", ".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_the_local_executor_gives_the_same_bytes(recipe, tmp_path):
    expected = prepare(read_recipe(recipe), tmp_path / "ours" / "data", 1)
    made = steps(recipe, out=tmp_path / "theirs", most_tasks=3)
    assert [step.tasks for step in made] == [3, 1, 3, 1, 3, 1]
    for step in made:
        run(step, tmp_path / "logs", workers=2 if step.name == "read" else 1)
    theirs = tmp_path / "theirs" / "made" / "data"
    assert content(theirs) == content(tmp_path / "ours" / "data")
    assert expected.manifest is not None
    assert read_manifest(theirs).fingerprint() == expected.manifest.fingerprint()
    dropped = {stage["name"]: stage["dropped"] for stage in read_manifest(theirs).stages}
    assert dropped["dedup.url"] == {"URL seen before": 4}
    assert dropped["dedup.exact"] == {"text seen before": 1}
    assert sum(dropped["decontaminate"].values()) >= 1


@pytest.mark.slow
def test_prepare_goes_on_where_the_executor_stopped(recipe, tmp_path):
    prepare(read_recipe(recipe), tmp_path / "ours" / "data", 1)
    made = steps(recipe, out=tmp_path / "theirs", most_tasks=4)
    for step in made[:2]:
        run(step, tmp_path / "logs")
    made[2](None, 1, 4)  # one of four tasks was done when the job ended
    prepare(read_recipe(recipe), tmp_path / "theirs" / "made" / "data", 1)
    assert content(tmp_path / "theirs" / "made" / "data") == content(tmp_path / "ours" / "data")
    made[0](None, 0, 4)  # all is done: nothing happens


def test_steps_out_of_order_are_refused(recipe, tmp_path):
    read, compare, keep, *_ = steps(recipe, out=tmp_path)
    with pytest.raises(MissingError, match="prepare again"):
        compare()
    read()
    with pytest.raises(MissingError, match="no decisions"):
        keep()
    with pytest.raises(OptionError, match="done by one task, got 3"):
        compare(None, 0, 3)


def test_other_test_items_are_another_plan(recipe, tmp_path):
    steps(recipe, out=tmp_path)[0]()
    (recipe.parent / "tests.txt").write_text("other words that nobody has ever written down\n", encoding="utf-8")
    with pytest.raises(OptionError, match="was made from something else: tests"):
        steps(recipe, out=tmp_path)
    (recipe.parent / "tests.txt").unlink()
    with pytest.raises(MissingError, match="no such file"):
        steps(recipe, out=tmp_path)


def test_rules_stand_in_a_pipeline_of_datatroves(tmp_path):
    texts = ["A mail to x.y@example.org and more.", "short", "Another one that is long enough to stay."]
    given = [Theirs(text, str(number), metadata={"date": "today"}) for number, text in enumerate(texts)]
    kept: list[Theirs] = []

    def collect(data, rank, world_size):
        for document in data:
            kept.append(document)
            yield document

    rules = Rules({"pii": {}, "gopher_quality": {"min_words": 4, "min_stop_words": 0}})
    executor.LocalPipelineExecutor([given, rules, collect], 1, 1, str(tmp_path / "logs")).run()
    assert [document.text for document in kept] == [
        "A mail to |||EMAIL_ADDRESS||| and more.",
        "Another one that is long enough to stay.",
    ]
    assert kept[0].metadata["date"] == "today"
    with pytest.raises(OptionError, match="no such rule"):
        Rules({"gopher": {}})


class Words:
    """Words as ours are, for what would need spaCy."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def crowd() -> list[tuple[int, str]]:
    """Group and text: 100 groups, of which 50 have two texts that are nearly the same."""
    draw = random.Random(4)
    texts = [(group, " ".join("".join(draw.choices("abcdefgh", k=8)) for _ in range(200))) for group in range(100)]
    for group, text in texts[:50]:
        words = text.split()
        words[draw.randrange(200)] = "changed"
        texts.append((group, " ".join(words)))
    draw.shuffle(texts)
    return texts


@pytest.mark.slow
def test_datatroves_minhash_keeps_one_of_each_group_too(tmp_path, monkeypatch):
    """Which of a group stays, only we promise: the first."""
    module = pytest.importorskip("datatrove.pipeline.dedup.minhash")
    monkeypatch.setattr(module, "load_word_tokenizer", lambda language: Words())
    texts = crowd()
    given = [Theirs(text, str(number)) for number, (_, text) in enumerate(texts)]
    config = module.MinhashConfig(hash_config=module.HashConfig(hash_fc="sha1"))  # its xxhash wants an older library
    signatures, buckets, removed = (str(tmp_path / name) for name in ("signatures", "buckets", "removed"))
    steps_ = [
        (module.MinhashDedupSignature(signatures, config), 1),
        (module.MinhashDedupBuckets(signatures, buckets, config=config), config.num_buckets),
        (module.MinhashDedupCluster(buckets, removed, config=config), 1),
    ]
    for step, tasks in steps_:
        for rank in range(tasks):
            list(step.run(iter(given) if step is steps_[0][0] else None, rank, tasks) or ())
    theirs = [int(document.id) for document in module.MinhashDedupFilter(removed).run(iter(given), 0, 1)]
    documents = [Document(text, str(number), "s") for number, (_, text) in enumerate(texts)]
    ours = [int(document.id) for document in deduplicate(tmp_path / "ours", [documents], NOTHING.with_(minhash=True))]
    groups = [group for group, _ in texts]
    assert sorted(groups[number] for number in theirs) == sorted(groups[number] for number in ours) == list(range(100))
    assert ours == sorted(groups.index(group) for group in range(100))
