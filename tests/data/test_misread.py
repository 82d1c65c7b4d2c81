"""Files that look like a source and would be half read: other encodings, JSON over lines, damaged tables."""

from __future__ import annotations

import json
import random

import pytest

from camelid.errors import FormatError, OptionError
from tests.data.test_sources import read, write_lines


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", ["plain words\nand more\n", "谁也不知道答案\n谁也不知道\n"])
def test_utf16_is_not_half_read(tmp_path, encoding, text):
    if encoding == "utf-16-be" or encoding == "utf-16-le":
        text = "\ufeff" + text if not text.isascii() else text
    (tmp_path / "a.txt").write_text(text, encoding=encoding)
    with pytest.raises(FormatError, match=r"a.txt: is UTF-16 or UTF-32, not UTF-8; convert it"):
        read(tmp_path, kind="text", path="a.txt", split="line")
    found, stats = read(tmp_path, kind="text", path="a.txt")
    assert (found, stats.dropped) == ([], {"UTF-16": 1})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in text.split()), encoding)
    with pytest.raises(FormatError, match=r"a.jsonl: is UTF-16 or UTF-32, not UTF-8; convert it"):
        read(tmp_path, kind="jsonl", path="a.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps([{"text": "a"}, {"text": "b"}], indent=2), "a JSON array"),
        (json.dumps([{"text": "a"}]), "a JSON array"),
        (json.dumps({"text": "a"}, indent=2), "JSON over several lines"),
        ('{"text": "a",\n "id": 1}\n{"text": "b",\n "id": 2}\n', "JSON over several lines"),
    ],
)
def test_json_that_is_not_lines_is_an_error(tmp_path, text, said):
    (tmp_path / "my a.jsonl").write_text(text)
    with pytest.raises(FormatError, match=rf"is {said}, not one object a line; convert it: jq -c '\.(\[\])?' '.*my a"):
        read(tmp_path, kind="jsonl", path="my a.jsonl")


def test_fields_in_fields(tmp_path):
    import pyarrow.parquet

    rows = [{"doc": {"text": f"text {i}", "about": {"id": f"d{i}", "lang": "en"}}, "a.b": i} for i in range(5)]
    write_lines(tmp_path / "a.jsonl", [json.dumps(row) for row in [*rows, {"doc": {}}, {"doc": 3}]])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    names = {"text_field": "doc.text", "id_field": "doc.about.id", "keep_fields": ["doc.about.lang", "a.b"]}
    for kind in ("jsonl", "parquet"):
        found, stats = read(tmp_path, kind=kind, path=f"a.{kind}", **names)
        assert [(document.id, document.text, dict(document.meta)) for document in found] == [
            (f"d{i}", f"text {i}", {"doc.about.lang": "en", "a.b": i}) for i in range(5)
        ]
        assert stats.dropped == ({"no text field": 2} if kind == "jsonl" else {})
    with pytest.raises(OptionError, match=r"no field 'doc.body' \(text_field\)"):
        read(tmp_path, kind="jsonl", path="a.jsonl", text_field="doc.body")
    with pytest.raises(OptionError, match=r"no field 'dog.text'"):
        read(tmp_path, kind="parquet", path="a.parquet", text_field="dog.text")


def test_long_windows_of_zstd(tmp_path):
    zstd = pytest.importorskip("backports.zstd")
    line = json.dumps({"text": "words"}).encode() + b"\n"
    options = {zstd.CompressionParameter.window_log: 30, zstd.CompressionParameter.enable_long_distance_matching: 1}
    with zstd.open(tmp_path / "a.jsonl.zst", "wb", options=options) as file:
        for _ in range(3):
            file.write(line)
    found, _ = read(tmp_path, kind="jsonl", path="a.jsonl.zst")
    assert [document.text for document in found] == ["words"] * 3


def test_damaged_parquet_is_always_one_line(tmp_path):
    """Bits flipped and pieces cleared anywhere: documents, or a FormatError that names the file."""
    import pyarrow.parquet

    path, draw = tmp_path / "a.parquet", random.Random(1)
    rows = [{"text": f"words {i} " * 5, "id": str(i)} for i in range(120)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=40)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        changed = bytearray(whole)
        for at in draw.sample(range(len(changed)), draw.randint(1, 3)):
            changed[at : at + 4] = bytes(4) if draw.random() < 0.3 else [changed[at] ^ 1 << draw.randrange(8)]
        path.write_bytes(changed)
        try:
            read(tmp_path, kind="parquet", path="a.parquet")
        except (FormatError, OptionError) as error:  # the latter: a name of a column has changed
            refused += "a.parquet: " in str(error)
    assert refused > 50
