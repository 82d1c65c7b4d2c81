"""Each kind of source: what it reads, how it is cut, and what it says of what it cannot read."""

from __future__ import annotations

import ast
import gzip
import json
import random
from pathlib import Path

import pytest

from camelid.data.chats.labels import grade_of
from camelid.data.chats.layouts import layout_of
from camelid.data.chats.options import FORMS
from camelid.data.options import DataOptions
from camelid.data.reading.documents import read_documents, read_parts, write_documents
from camelid.data.reading.work_units import work_units
from camelid.data.sources import docstrings, kinds, source_options
from camelid.data.stage_stats import StageStats
from camelid.errors import FormatError, MissingError, OptionError

RECORDS = [
    {"text": f"Text {i} – ü", "id": f"d{i}", "url": f"https://a.example/{i}", "kind": "x", "n": i} for i in range(40)
]


def read(folder: Path, **source: object):
    """All documents of a source, by way of units, and the account of reading."""
    options = DataOptions(sources=[{"name": "s", **source}])
    stats = StageStats("read", filters=False)
    found = []
    for unit in work_units(options, folder):
        found += list(read_parts(unit.parts, unit.source, stats))
    return found, stats


def write_lines(path: Path, lines: list[str]) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        try:
            from compression import zstd
        except ImportError:
            from backports import zstd
        data = zstd.compress(data)
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json.zst"])
def test_json_lines(tmp_path, name):
    write_lines(tmp_path / name, [json.dumps(record) for record in RECORDS])
    found, stats = read(tmp_path, kind="jsonl", path=name, licence="CC0-1.0", keep_fields=["kind", "n"])
    assert [document.text for document in found] == [record["text"] for record in RECORDS]
    assert (found[3].id, found[3].url, found[3].licence) == ("d3", "https://a.example/3", "CC0-1.0")
    assert found[3].meta == {"kind": "x", "n": 3}
    assert (stats.documents_in, stats.documents_out, stats.dropped) == (40, 40, {})
    assert stats.bytes_in == sum(len(record["text"].encode()) for record in RECORDS)


def test_fields_by_other_names_and_places_as_ids(tmp_path):
    lines = [json.dumps({"content": f"{i}", "key": i, "spdx": "MIT" if i else ""}) for i in range(3)]
    write_lines(tmp_path / "a.jsonl", lines)
    wanted = {"kind": "jsonl", "path": "a.jsonl", "text_field": "content", "licence": "CC0-1.0"}
    found, _ = read(tmp_path, **wanted, id_field="key", licence_field="spdx")
    assert [(document.id, document.licence) for document in found] == [("0", "CC0-1.0"), ("1", "MIT"), ("2", "MIT")]
    found, _ = read(tmp_path, **wanted)
    assert [document.id for document in found] == [f"a.jsonl#{i * (len(lines[0]) + 1) + 3 * (i > 1)}" for i in range(3)]


@pytest.mark.parametrize("field", ["text_field", "id_field", "url_field", "licence_field"])
def test_a_field_that_is_not_there_is_an_error_with_those_that_are(tmp_path, field):
    write_lines(tmp_path / "a.jsonl", ["not JSON", json.dumps({"text": "x", "title": "y"})])
    with pytest.raises(OptionError, match=rf"a.jsonl: no field 'body' \({field}\); its fields: text, title"):
        read(tmp_path, kind="jsonl", path="a.jsonl", **{field: "body"})


BAD = {
    '{"text": "cut': "not JSON",
    "[1]": "no JSON object",
    '{"text": 3}': "text is no string",
    '{"body": "x"}': "no text field",
    '{"text": " "}': "empty",
    '{"text": "\\ud800"}': "not Unicode",
    '{"text": "' + "long " * 30 + '"}': "too long",
}


def test_malformed_lines_are_counted_with_examples_or_an_error(tmp_path):
    good = json.dumps({"text": "good"})
    write_lines(tmp_path / "a.jsonl", [good, *BAD, "", good])
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"text": "\xff"}\n')
    found, stats = read(tmp_path, kind="jsonl", path="a.jsonl", longest=100)
    assert [document.text for document in found] == ["good", "good"]
    assert stats.dropped == dict.fromkeys([*BAD.values(), "not UTF-8"], 1)
    assert stats.documents_in == 2 + len(stats.dropped)
    assert stats.examples["not JSON"] == [{"id": f"a.jsonl#{len(good) + 1}", "excerpt": '{"text": "cut'}]
    with pytest.raises(FormatError, match=r"a.jsonl: not JSON at a.jsonl#\d+; fix it, or set malformed = "):
        read(tmp_path, kind="jsonl", path="a.jsonl", malformed="error")


def test_an_endless_line_is_passed_over_without_being_held(tmp_path):
    good = json.dumps({"text": "good"})
    write_lines(tmp_path / "a.jsonl", [good, '{"text": "' + "x" * 3_000_000 + '"}', good])
    found, stats = read(tmp_path, kind="jsonl", path="a.jsonl", longest=10)
    assert len(found) == 2
    assert stats.dropped == {"line too long": 1}


@pytest.mark.parametrize("kind", ["jsonl", "text"])
def test_cutting_changes_no_document(tmp_path, kind):
    """However small the units: the same documents with the same ids."""
    draw = random.Random(1)
    if kind == "jsonl":
        write_lines(tmp_path / "a.jsonl", [json.dumps({"text": "ü" * draw.randint(1, 99)}) for _ in range(300)])
        source = {"kind": "jsonl", "path": "a.jsonl"}
    else:
        ends = ["\n", "\n\n", "\n\n\n", "\n \n", "\r\n\r\n"]
        text = "".join("ü" * draw.randint(1, 99) + draw.choice(ends) for _ in range(300))
        (tmp_path / "a.txt").write_text(text, newline="")
        source = {"kind": "text", "path": "a.txt", "split": "blank-line"}
    whole, _ = read(tmp_path, **source)
    assert len(whole) > 100
    for size in (1, 300, 5000):
        assert read(tmp_path, **source, unit_bytes=size)[0] == whole
        assert (
            len(work_units(DataOptions(sources=[{"name": "s", **source, "unit_bytes": size}]), tmp_path))
            > 5 - (size > 300) * 4
        )


@pytest.mark.parametrize(
    ("split", "texts", "ids"),
    [
        ("file", ["one\ntwo\n\nthree"], ["a.txt"]),
        ("blank-line", ["one\ntwo", "three"], ["a.txt#0", "a.txt#9"]),
        ("line", ["one", "two", "three"], ["a.txt#0", "a.txt#4", "a.txt#9"]),
        ("mark", ["one", "\nthree"], ["a.txt#0", "a.txt#8"]),
    ],
)
def test_text_is_split_as_asked(tmp_path, split, texts, ids):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree")
    found, _ = read(tmp_path, kind="text", path="a.txt", split=split, mark="two")
    assert [document.text for document in found] == texts
    assert [document.id for document in found] == ids


def test_text_that_is_too_long_or_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\n\n" + b"x" * 1000 + b"\n" + b"y" * 900 + b"\n\ngood")
    found, stats = read(tmp_path, kind="text", path="a.txt", split="blank-line", longest=400)
    assert [document.text for document in found] == ["good"]
    assert stats.dropped == {"not UTF-8": 1, "too long": 1}
    found, stats = read(tmp_path, kind="text", path="a.txt", longest=100)
    assert stats.dropped == {"too long": 1}


def test_folders_patterns_and_labels(tmp_path):
    for name in ("a/one.txt", "a/b/two.txt", "c/three.txt", "a/.hidden/x.txt", "a/.y.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found, _ = read(tmp_path, kind="text", path=["a", "c/*.txt", "a/one.txt"])
    assert [document.id for document in found] == ["a/b/two.txt", "a/one.txt", "c/three.txt"]
    with pytest.raises(MissingError, match=r"s: .*nothing\.\*: no file; check the path"):
        read(tmp_path, kind="text", path="nothing.*")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"empty: no file that ends in .*jsonl"):
        read(tmp_path, kind="jsonl", path="empty")


def test_a_damaged_archive_is_an_error(tmp_path):
    write_lines(tmp_path / "a.jsonl.gz", [json.dumps({"text": str(random.Random(i).random())}) for i in range(2000)])
    whole = (tmp_path / "a.jsonl.gz").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"a.jsonl.gz: cannot be read .*; fetch it again"):
        read(tmp_path, kind="jsonl", path="a.jsonl.gz")
    write_lines(tmp_path / "b.jsonl.zst", [json.dumps({"text": "x"})] * 9)
    (tmp_path / "b.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"rubbish" * 9)
    with pytest.raises(FormatError, match=r"b.jsonl.zst: cannot be read"):
        read(tmp_path, kind="jsonl", path="b.jsonl.zst")


def test_parquet(tmp_path):
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(RECORDS)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    found, _ = read(tmp_path, kind="parquet", path="a.parquet", keep_fields=["n"])
    assert [document.text for document in found] == [record["text"] for record in RECORDS]
    assert [document.meta for document in found] == [{"n": record["n"]} for record in RECORDS]
    assert read(tmp_path, kind="parquet", path="a.parquet", keep_fields=["n"], unit_bytes=100)[0] == found
    pyarrow.parquet.write_table(table.select(["text"]), tmp_path / "b.parquet", row_group_size=7)
    whole, _ = read(tmp_path, kind="parquet", path="b.parquet")
    assert [document.id for document in whole] == [f"b.parquet#{i}" for i in range(40)]
    assert read(tmp_path, kind="parquet", path="b.parquet", unit_bytes=100)[0] == whole
    with pytest.raises(OptionError, match=r"no field 'body' \(text_field\); its fields: id, kind, n, text, url"):
        read(tmp_path, kind="parquet", path="a.parquet", text_field="body")
    (tmp_path / "c.parquet").write_bytes(b"nothing")
    with pytest.raises(FormatError, match=r"c.parquet: not a readable Parquet file"):
        read(tmp_path, kind="parquet", path="c.parquet")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return pytest.importorskip("datasets")


def test_datasets_saved_or_as_files(tmp_path, offline):
    data = offline.Dataset.from_list(RECORDS)
    data.save_to_disk(tmp_path / "saved")
    offline.DatasetDict({"train": data, "other": data.select(range(3))}).save_to_disk(tmp_path / "parts")
    for path, count in (("saved", 40), ("parts", 40)):
        found, _ = read(tmp_path, kind="dataset", path=path, id_field="id")
        assert [document.text for document in found] == [record["text"] for record in RECORDS[:count]]
    assert len(read(tmp_path, kind="dataset", path="parts", split="other")[0]) == 3
    with pytest.raises(OptionError, match=r"no field 'body' \(text_field\); its fields: id, kind, n, text, url"):
        read(tmp_path, kind="dataset", path="saved", text_field="body")
    with pytest.raises(OptionError, match="check config and split"):
        read(tmp_path, kind="dataset", path="parts", split="nothing")


def test_a_folder_of_files_is_a_dataset_too(tmp_path, offline):
    (tmp_path / "files").mkdir()
    for number in range(3):
        lines = [json.dumps(record) for record in RECORDS[number * 10 : number * 10 + 10]]
        write_lines(tmp_path / "files" / f"{number}.jsonl", lines)
    found, _ = read(tmp_path, kind="dataset", path="files")
    assert [document.text for document in found] == [record["text"] for record in RECORDS[:30]]
    assert len(work_units(DataOptions(sources=[{"name": "s", "kind": "dataset", "path": "files"}]), tmp_path)) == 3


def test_a_dataset_of_the_hub_is_read_at_one_commit(tmp_path, offline, monkeypatch):
    from types import SimpleNamespace

    import huggingface_hub

    from camelid.data.made_from import inputs

    asked = []

    def load_dataset(name, config, *, split, revision, streaming):
        asked.append((name, config, split, revision, streaming))
        return offline.Dataset.from_list(RECORDS).to_iterable_dataset(num_shards=2)

    def dataset_info(self, name, revision):
        return SimpleNamespace(sha="abc123" if revision is None else f"of-{revision}")

    monkeypatch.setattr(offline, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    source = {"kind": "dataset", "path": "owner/name", "config": "en"}
    found, _ = read(tmp_path, **source)
    assert [document.text for document in found] == [record["text"] for record in RECORDS]
    assert set(asked) == {("owner/name", "en", "train", "abc123", True)}
    states = [
        inputs(work_units(DataOptions(sources=[{"name": "s", **source, **more}]), tmp_path))
        for more in ({}, {"revision": "v2"})
    ]
    assert states[0]["s"]["files"] == 1
    assert states[0] != states[1]


def test_a_dataset_that_is_nowhere_is_said_plainly(tmp_path, offline, monkeypatch):
    import huggingface_hub

    def dataset_info(self, name, revision):
        raise huggingface_hub.errors.HFValidationError("not found")

    def unreachable(self, name, revision):
        raise RuntimeError("no net")

    def load_dataset(name, config, **given):
        assert given["revision"] == "main"
        raise ConnectionError(f"cannot reach {name}")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(MissingError, match=r"s: owner/none: no such folder, and the hub says: not found"):
        read(tmp_path, kind="dataset", path="owner/none")
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(offline, "load_dataset", load_dataset)
    with pytest.raises(MissingError, match=r"s: owner/none@main: cannot reach owner/none; check the name and the net"):
        read(tmp_path, kind="dataset", path="owner/none")


def test_python_is_a_corpus():
    found, stats = read(Path(), kind="corpus")
    assert stats.bytes_out > 1_000_000
    assert stats.dropped == {}
    by_id = {document.id: document for document in found}
    assert len(by_id) == len(found)
    assert "if_stmt" in by_id["topics/if"].text
    text = by_id["docstrings/textwrap.py"].text
    assert "def shorten(text, width, **kwargs)\n\nCollapse and truncate the given text" in text
    assert "class TextWrapper\n\n" in text
    assert {document.licence for document in found} == {"PSF-2.0"}
    few, _ = read(Path(), kind="corpus", max_documents=5)
    assert few == found[:5]


MODULE = '''
def first(x):
    """Give the first of them. It may be nothing.

    More about it.
    """

def second(x):
    """Give the second
    of them"""

class _Hidden:
    """What nobody should ask about."""

    def shown(self):
        """See http://example.org for what it does."""

def __dir__():
    """What Python asks for itself."""
'''


def test_questions_about_docstrings():
    made = {record["id"]: record for record in docstrings.records(ast.parse(MODULE), "m")}
    assert sorted(made) == ["docstrings/m._Hidden", "docstrings/m.first", "docstrings/m.second"]
    first, second, hidden = (made[f"docstrings/m.{name}"] for name in ("first", "second", "_Hidden"))
    assert first["chosen"] == "Give the first of them. It may be nothing."
    assert second["chosen"] == "Give the second of them."
    assert hidden["chosen"] == "m._Hidden is private. Look at what m documents instead."
    assert hidden["rejected"] == "What nobody should ask about."
    assert (hidden["safety"], hidden["chosen_safe"], hidden["rejected_safe"]) == (True, True, False)
    assert (first["safety"], first["rejected_safe"]) == (False, True)
    for record in made.values():
        said = [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": record["chosen"]}]
        assert record["messages"] == said
        assert record["chosen"] != record["rejected"]
        for form in FORMS:
            assert layout_of(record, form) is not None
        assert grade_of(record) == record["grade"]


def test_the_standard_library_is_asked_about():
    found, stats = read(Path(), kind="docstrings", max_documents=400)
    assert stats.dropped == {}
    assert len({document.id for document in found}) == len(found) == 400
    for names, private in (("public", False), ("private", True)):
        some, _ = read(Path(), kind="docstrings", names=names, max_documents=50)
        assert {"private. Look at" in document.text for document in some} == {private}


def test_source_code_is_a_part_of_the_corpus(monkeypatch):
    found, _ = read(Path(), kind="corpus", parts=["source"], max_documents=20)
    assert all(document.id.startswith("source/") for document in found)
    assert len(found) == 20


def test_at_most_so_many_documents(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        write_lines(tmp_path / name, [json.dumps({"text": name})] * 5)
    found, stats = read(tmp_path, kind="jsonl", path="*.jsonl", max_documents=7)
    assert [document.text for document in found] == ["a.jsonl"] * 5 + ["b.jsonl"] * 2
    assert stats.documents_in == 7


def test_kinds_are_files_and_options_are_strict():
    assert kinds() == ["corpus", "dataset", "docstrings", "jsonl", "parquet", "text"]
    with pytest.raises(OptionError, match="did you mean 'jsonl'"):
        source_options({"name": "s", "kind": "json"})
    with pytest.raises(OptionError, match="splitt: no such option; did you mean 'split'"):
        source_options({"name": "s", "kind": "text", "path": "x", "splitt": "line"})
    with pytest.raises(OptionError, match="split"):
        DataOptions(sources=[{"name": "s", "kind": "jsonl", "path": "x", "split": "line"}])
    with pytest.raises(OptionError, match="say what kind"):
        source_options({"name": "s"})
    with pytest.raises(OptionError, match="two sources are named 's'"):
        work_units(DataOptions(sources=[{"name": "s", "kind": "corpus"}] * 2), Path())
    with pytest.raises(OptionError, match=r"give a table \[\[data.sources\]\]"):
        work_units(DataOptions(), Path())


def test_documents_survive_their_file(tmp_path):
    found, _ = read(Path(), kind="corpus", max_documents=20)
    write_documents(tmp_path / "a.jsonl.gz", found)
    assert list(read_documents(tmp_path / "a.jsonl.gz")) == found
    before = (tmp_path / "a.jsonl.gz").read_bytes()
    write_documents(tmp_path / "a.jsonl.gz", iter(found))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == before
    (tmp_path / "a.jsonl.gz").write_bytes(before[:-20])
    with pytest.raises(FormatError, match="prepare the data again"):
        list(read_documents(tmp_path / "a.jsonl.gz"))
