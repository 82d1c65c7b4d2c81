"""The driver: the same bytes however it is run, stopped and run again; plain refusals; every document accounted for."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from camelid.data import prepare as module
from camelid.data.manifest import read_manifest
from camelid.data.prepare import already, prepare, try_out
from camelid.data.workers import Workers
from camelid.errors import FormatError, OptionError, ResourceError
from camelid.recipe import read_recipe

RECIPE = """
name = "made"
seed = 3

[data]
validation = 0.2
rules = {gopher_quality = {min_words = 20}, pii = {}}
dedup = {paragraph = true}

[[data.sources]]
name = "web"
kind = "jsonl"
path = "web.jsonl"
licence = "CC0-1.0"
unit_bytes = 4000

[[data.sources]]
name = "books"
kind = "text"
path = "books"
weight = 2.0

[tokenizer]
vocab_size = 600
"""
NAMES = "llama river stone wind morning grass hill keeper path market wool maize letter water animal tree"
NOUNS = NAMES.split()


def story(draw: random.Random, length: int) -> str:
    lines = []
    for _ in range(length):
        words = ["the", *draw.sample(NOUNS, 5), "and", "the", *draw.sample(NOUNS, 4)]
        lines.append(" ".join(words).capitalize() + f" of {draw.randint(0, 10**6)}.")
    return "\n".join(lines)


@pytest.fixture
def recipe(tmp_path):
    """A recipe with two sources: 80 pages with every kind of trouble, and three books."""
    draw, folder = random.Random(7), tmp_path / "recipe"
    (folder / "books").mkdir(parents=True)
    pages = [{"text": story(draw, 4), "url": f"https://a.example/{i}"} for i in range(80)]
    pages[10]["text"] = pages[3]["text"]
    pages[20]["url"] = pages[4]["url"]
    pages[30]["text"] = "Short."
    pages[40]["text"] += "\nWrite to jo@mail.example.org."
    pages[50]["text"] = pages[5]["text"] + " Once more."
    pages[60]["text"] = pages[6]["text"].splitlines()[0] + "\n" + pages[60]["text"]
    lines = [json.dumps(page) for page in pages]
    lines[70] = "no JSON"
    (folder / "web.jsonl").write_text("\n".join(lines) + "\n")
    for i in range(3):
        (folder / "books" / f"{i}.txt").write_text(story(draw, 30))
    (folder / "made.toml").write_text(RECIPE)
    return folder / "made.toml"


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that hold the time of day."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("run.json", ".lock")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def counts(prepared) -> dict[str, tuple[int, int, dict[str, int]]]:
    return {stats.name: (stats.documents_in, stats.documents_out, stats.dropped) for stats in prepared.stage_stats}


def test_every_document_is_accounted_for(recipe, tmp_path):
    done = prepare(read_recipe(recipe), tmp_path / "data", 1)
    assert counts(done) == {
        "read": (83, 82, {"not JSON": 1}),
        "gopher_quality": (82, 81, {"few words": 1}),
        "pii": (81, 81, {}),
        "dedup.url": (81, 80, {"URL seen before": 1}),
        "dedup.exact": (80, 79, {"text seen before": 1}),
        "dedup.minhash": (79, 78, {"nearly the same as one before": 1}),
        "dedup.paragraph": (78, 78, {}),
        "tokenise": (78, 78, {}),
    }
    by_name = {stats.name: stats for stats in done.stage_stats}
    assert by_name["pii"].changed == {"email masked": 1}
    assert by_name["dedup.paragraph"].changed == {"paragraphs removed": 1}
    assert by_name["gopher_quality"].examples["few words"][0]["excerpt"] == "Short."
    manifest = read_manifest(tmp_path / "data")
    manifest.verify(tmp_path / "data")
    assert [dict(stage) for stage in manifest.stages] == [stats.as_json() for stats in done.stage_stats]
    web, books = manifest.sources
    assert (web.name, web.kind, web.licence, books.weight) == ("web", "jsonl", "CC0-1.0", 2.0)
    assert web.documents + web.validation_documents == 75
    assert [file["name"] for file in books.files] == ["0.txt", "1.txt", "2.txt"]
    assert by_name["tokenise"].changed == {"tokens": sum(shard.tokens for shard in manifest.shards)}
    assert 3 < web.validation_documents < 30
    record = json.loads((tmp_path / "data" / "run.json").read_text())
    assert record["command"] == "prepare"
    assert record["options"]["data"]["validation"] == 0.2
    assert not (tmp_path / "data" / "work").exists()


def test_tokens_are_the_documents(recipe, tmp_path):
    """Decoded, shards give the documents that stayed, in order, each from its begin to its end."""
    prepare(read_recipe(recipe), tmp_path / "data", 1)
    manifest = read_manifest(tmp_path / "data")
    tokenizer = manifest.open_tokenizer(tmp_path / "data")
    for source in ("web", "books"):
        texts = []
        for path in sorted((tmp_path / "data" / "documents").glob(f"{source}-*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                texts += [json.loads(line)["text"] for line in file]
        found = []
        for validation in (False, True):
            tokens = manifest.tokens(tmp_path / "data", source, validation)
            for piece in tokens.documents_at(0, len(tokens)):
                ids = tokens.slice(piece.start, piece.stop).tolist()
                assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
                assert tokenizer.bos_id not in ids[1:]
                found.append(tokenizer.decode(ids[1:-1]))
        assert sorted(found) == sorted(texts)


@pytest.mark.slow
def test_workers_change_nothing(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_BYTES", 5000)
    one = prepare(read_recipe(recipe), tmp_path / "one", 1)
    two = prepare(read_recipe(recipe), tmp_path / "two", 2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert counts(one) == counts(two)
    assert one.manifest.fingerprint() == two.manifest.fingerprint()
    assert len(one.manifest.shards) > 5


@pytest.mark.slow
def test_the_cut_into_units_changes_no_token(recipe, tmp_path):
    one = prepare(read_recipe(recipe), tmp_path / "one", 1)
    other = prepare(read_recipe(recipe, ["data.sources.0.unit_bytes=1000000"]), tmp_path / "other", 1)
    assert one.manifest.fingerprint() == other.manifest.fingerprint()


def killed_at(number: int, recipe: Path, folder: Path) -> bool:
    """Prepare in a process that dies by SIGKILL as it makes its `number`-th file safe; whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child does not need
        child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try:
        sync, left = os.fsync, [number]

        def fsync(file: int) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(file)

        os.fsync = fsync
        prepare(read_recipe(recipe), folder, 1)
    finally:
        os._exit(0)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_BYTES", 9000)
    prepare(read_recipe(recipe), tmp_path / "whole", 1)
    expected = contents(tmp_path / "whole")
    for number in (1, 2, 7, 14, 22, 30, 38, 46, 55):
        folder = tmp_path / f"killed{number}"
        if not killed_at(number, recipe, folder):
            break
        killed_at(3, recipe, folder)  # and once more
        prepare(read_recipe(recipe), folder, 1)
        assert contents(folder) == expected, number
    assert number > 40, "so many files are made that all steps were cut"


@pytest.mark.slow
def test_workers_end_with_a_killed_driver_and_the_run_goes_on(recipe, tmp_path):
    prepare(read_recipe(recipe), tmp_path / "whole" / "made" / "data", 1)
    words = [sys.executable, "-m", "camelid", "prepare", str(recipe), "--out", str(tmp_path / "runs"), "--workers", "2"]
    read = tmp_path / "runs" / "made" / "data" / "work" / "read"
    with subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True) as process:
        while process.poll() is None and not list(read.glob("web-*.json")):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it was killed before it was done"
    for _ in range(6000):  # its workers leave when they see that it is gone
        if not members(process.pid):
            break
        time.sleep(0.01)
    assert not members(process.pid)
    subprocess.run(words, check=True, capture_output=True)
    assert contents(tmp_path / "runs") == contents(tmp_path / "whole")


def members(group: int) -> list[int]:
    """Processes of a process group that are not dead."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, their = (path / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(their) == group and state != "Z":
            found.append(int(path.name))
    return found


def test_the_same_again_does_nothing_and_something_else_is_refused(recipe, tmp_path):
    folder = tmp_path / "data"
    prepare(read_recipe(recipe), folder, 1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    again = prepare(read_recipe(recipe), folder, 1)
    assert again.already
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"} == before
    changes = ["data.validation=0.5", "data.rules.gopher_quality.min_words=21", "tokenizer.vocab_size=500"]
    with pytest.raises(OptionError) as caught:
        prepare(read_recipe(recipe, changes), folder, 1)
    for difference in (
        "data.validation 0.2 → 0.5",
        "min_words 20 → 21",
        "tokenizer.vocab_size 600 → 500",
        "--overwrite",
    ):
        assert difference in str(caught.value)
    (recipe.parent / "bad.txt").write_text("bad.example")
    with pytest.raises(OptionError, match=r"data\.rules\.url not there → \{"):
        prepare(read_recipe(recipe, ['data.rules.url.files=["bad.txt"]']), folder, 1)
    with (recipe.parent / "web.jsonl").open("a") as file:
        file.write(json.dumps({"text": story(random.Random(0), 4)}) + "\n")
    with pytest.raises(OptionError, match="the files of source web have changed"):
        prepare(read_recipe(recipe), folder, 1)
    assert not prepare(read_recipe(recipe), folder, 1, overwrite=True).already


def test_finished_data_needs_its_documents_no_more(recipe, tmp_path):
    """It may be moved with its recipe, its documents' files touched or deleted; others are noticed."""
    prepare(read_recipe(recipe), tmp_path / "data", 1)
    (tmp_path / "data" / "plan.json").write_text(
        (tmp_path / "data" / "plan.json").read_text().replace('"malformed": "drop",', "", 1)
    )  # made by a camelid that did not have that option yet
    shutil.copytree(recipe.parent, tmp_path / "else")  # other times, another place
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    moved, web = tmp_path / "else" / "made.toml", tmp_path / "else" / "web.jsonl"
    for quick in (False, True):
        assert already(read_recipe(moved), tmp_path / "moved", quick).notes == []
        (tmp_path / "else" / "more").mkdir(exist_ok=True)
        web.rename(tmp_path / "else" / "more" / "web.jsonl")  # and said so in the recipe
        renamed = read_recipe(moved, ["data.sources.0.path=more/web.jsonl"])
        assert already(renamed, tmp_path / "moved", quick).notes == []
        (tmp_path / "else" / "more" / "web.jsonl").rename(web)
    text = web.read_text()
    web.write_text(text.replace("llama", "lamas"))  # of the same length
    with pytest.raises(OptionError, match=r"files of source web have changed .*camelid prepare RECIPE --overwrite"):
        prepare(read_recipe(moved), tmp_path / "moved", 1)
    web.write_text(text + text)
    (note,) = already(read_recipe(moved), tmp_path / "moved", quick=True).notes
    assert "the files of source web have changed since the data was made" in note
    for name in ("pages.jsonl", "gone.jsonl"):  # the recipe names other files than the data was made from
        (tmp_path / "else" / "pages.jsonl").write_text(text.replace("llama", "lamas"))
        with pytest.raises(OptionError, match=r"web.* have changed|web.* not there any more"):
            already(read_recipe(moved, [f"data.sources.0.path={name}"]), tmp_path / "moved", quick=True)
    web.unlink()
    for quick in (False, True):
        (note,) = already(read_recipe(moved), tmp_path / "moved", quick).notes
        assert "source web: its files are not there any more" in note


def test_a_folder_with_something_else_is_left_alone(recipe, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OptionError, match="choose another name"):
            prepare(read_recipe(recipe), tmp_path / "data", 1, overwrite=overwrite)
    assert (tmp_path / "data" / "thesis.txt").exists()


def test_two_at_once_are_refused(recipe, tmp_path):
    from camelid.data.folder import DataFolder

    with DataFolder(tmp_path / "data").locked(), pytest.raises(OptionError, match="another camelid prepares data here"):
        prepare(read_recipe(recipe), tmp_path / "data", 1)


def test_nothing_left_is_an_error_that_says_where(recipe, tmp_path):
    with pytest.raises(OptionError, match=r"no document is left: gopher_quality: dropped all of 82 .* 'few words'"):
        prepare(read_recipe(recipe, ["data.rules.gopher_quality.min_words=5000"]), tmp_path / "data", 1)


def test_malformed_lines_can_be_errors(recipe, tmp_path):
    with pytest.raises(FormatError, match=r"not JSON at web.jsonl#\d+"):
        prepare(read_recipe(recipe, ["data.sources.0.malformed=error"]), tmp_path / "data", 2)


def test_a_tokenizer_that_was_too_large_can_be_made_smaller(recipe, tmp_path):
    """Without reading everything again."""
    with pytest.raises(OptionError, match="vocab_size: these documents give"):
        prepare(read_recipe(recipe, ["tokenizer.vocab_size=30000"]), tmp_path / "data", 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "documents").iterdir()}
    assert not prepare(read_recipe(recipe), tmp_path / "data", 1).already
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "documents").iterdir()} == before
    prepare(read_recipe(recipe), tmp_path / "other", 1)
    assert contents(tmp_path / "data") == contents(tmp_path / "other")


def test_a_tokenizer_can_be_taken(recipe, tmp_path):
    prepare(read_recipe(recipe), tmp_path / "one", 1)
    opened = [f"tokenizer.open={tmp_path / 'one' / 'tokenizer'}", "data.seed=1"][:1]
    other = prepare(read_recipe(recipe, opened), tmp_path / "other", 1)
    assert other.manifest.fingerprint() == read_manifest(tmp_path / "one").fingerprint()


def test_validation_is_chosen_by_id_whatever_else_there_is(recipe, tmp_path):
    def held_out(folder: Path) -> set[str]:
        manifest = read_manifest(folder)
        tokens = manifest.tokens(folder, "web", validation=True)
        return {tokens.describe(piece)["id"] for piece in tokens.documents_at(0, len(tokens))}

    prepare(read_recipe(recipe, ["data.dedup={}"]), tmp_path / "one", 1)
    lines = (recipe.parent / "web.jsonl").read_text().splitlines(keepends=True)
    (recipe.parent / "web.jsonl").write_text("".join(lines[:60]))
    prepare(read_recipe(recipe, ["data.dedup={}"]), tmp_path / "other", 1)
    assert held_out(tmp_path / "other") < held_out(tmp_path / "one")


def test_a_trial_keeps_nothing_and_may_be_too_small_for_a_tokenizer(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    tried = try_out(read_recipe(recipe), 20)
    assert tried.stage_stats[0].documents_in == 13  # ten of the web, all three books
    assert tried.manifest is not None
    assert try_out(read_recipe(recipe, ["tokenizer.vocab_size=30000"]), 20).manifest is None
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_it_takes_is_said_first(recipe, tmp_path):
    said = []
    steps = []
    prepare(read_recipe(recipe), tmp_path / "data", 1, planned=said.append, progress=lambda *step: steps.append(step))
    (need,) = said
    assert need.files == 4
    size = sum(path.stat().st_size for path in [recipe.parent / "web.jsonl", *(recipe.parent / "books").iterdir()])
    assert need.n_bytes == size
    assert list(dict.fromkeys(step[0] for step in steps))[:3] == ["reading", "comparing", "keeping"]
    assert all(done <= total for _, done, total in steps if total is not None)


def test_more_memory_than_there_is_is_refused(recipe, tmp_path):
    with pytest.raises(ResourceError, match=r"2 GB are free; give --workers 3"):
        prepare(read_recipe(recipe), tmp_path / "data", 20, free=2 * 10**9)
    with pytest.raises(ResourceError, match="a smaller `longest`"):
        prepare(read_recipe(recipe, ["data.sources.0.longest=400000000"]), tmp_path / "data", 20, free=2 * 10**9)
    small = ["data.sources.0.longest=4000", "data.sources.1.longest=40000"]
    prepare(read_recipe(recipe, small), tmp_path / "data", 1, free=2 * 10**9)  # what was refused does not bind


def square(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_killed_worker_is_a_plain_error():
    with (
        pytest.raises(ResourceError, match="one of 2 workers was killed, probably for lack of memory"),
        Workers(2) as pool,
    ):
        list(pool.map(square, [1, 13, 3]))


def test_workers_want_to_be_some():
    with pytest.raises(OptionError, match="at least 1"):
        Workers(0)
    with Workers(1) as pool:
        assert list(pool.map(square, [2, 3])) == [(2, 4), (3, 9)]
