"""Shards on disk: numpy reads them, hashes hold, damage is told, and size is no matter."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.document import Document
from camelid.data.manifest import read_manifest
from camelid.data.shards import Shard, ShardWriter, Tokens, _header, token_type
from camelid.errors import FormatError, MissingError, OptionError, UnsupportedError, VerifyError
from tests.data.made import make_data


def document(name: str = "a", **more) -> Document:
    return Document("text é", name, "s", **more)


def write(folder, many, vocab_size=1000, max_bytes=64) -> list[Shard]:
    with ShardWriter(folder, "s", vocab_size, max_bytes) as writer:
        for number, ids in enumerate(many):
            writer.add(document(f"s/{number}", meta={"n": number}), ids)
        return writer.close()


MANY = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=50), min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(many=MANY, max_bytes=st.integers(1, 300), data=st.data())
def test_what_was_written_is_read(tmp_path_factory, many, max_bytes, data):
    folder = tmp_path_factory.mktemp("shards")
    shards = write(folder, many, max_bytes=max_bytes)
    tokens, flat = Tokens(folder, shards, 1000), [id for ids in many for id in ids]
    start = data.draw(st.integers(0, len(flat)))
    stop = data.draw(st.integers(start, len(flat)))
    assert len(tokens) == len(flat)
    assert tokens.slice(start, stop).tolist() == flat[start:stop]
    begins = np.cumsum([0, *map(len, many)])[:-1]
    assert tokens.starts(start, stop).tolist() == [begin for begin in begins if start <= begin < stop]
    pieces = tokens.documents_at(start, stop)
    assert [token for piece in pieces for token in range(piece.start, piece.stop)] == list(range(start, stop))
    for piece in pieces:
        about = tokens.describe(piece)
        number = about["meta"]["n"]
        assert about["tokens"] == len(many[number])
        assert piece.start - piece.offset == begins[number]
    for shard in shards:
        assert shard.tokens * 2 <= max_bytes or shard.documents == 1
        shard.verify(folder)


def test_numpy_and_gzip_read_them_alone(tmp_path):
    write(tmp_path, [[1, 2, 3], [4, 999]])
    ids = np.load(tmp_path / "s-00000.npy")
    assert (ids.dtype, ids.tolist()) == (np.uint16, [1, 2, 3, 4, 999])
    assert np.load(tmp_path / "s-00000.docs.npy").tolist() == [0, 3, 5]
    zipped = (tmp_path / "s-00000.docs.jsonl.gz").read_bytes()
    lines = [json.loads(line) for line in gzip.decompress(zipped).splitlines()]
    assert lines[1] == {"id": "s/1", "url": None, "licence": "", "tokens": 2, "bytes": 7, "meta": {"n": 1}}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "s-00000.docs.jsonl.gz",
        "s-00000.docs.npy",
        "s-00000.npy",
    ]


def test_the_same_documents_give_the_same_bytes(tmp_path):
    one, two = (write(tmp_path / name, [[5, 6], [7]]) for name in "ab")
    assert one == two
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_wide_vocabularies_have_wide_ids(tmp_path):
    assert token_type(65536) == np.uint16
    shards = write(tmp_path, [[65536, 3]], vocab_size=65537)
    assert Tokens(tmp_path, shards, 65537).slice(0, 2).tolist() == [65536, 3]


@pytest.mark.parametrize("ids", [[1000], [-1], [3, 1 << 40]])
def test_an_id_outside_the_vocabulary_is_refused(tmp_path, ids):
    with pytest.raises(FormatError, match=r"a: id .* is not in the vocabulary of 1000"):
        ShardWriter(tmp_path, "s", 1000).add(document(), ids)


def test_a_document_without_tokens_is_refused(tmp_path):
    with pytest.raises(FormatError, match="no tokens"):
        ShardWriter(tmp_path, "s", 1000).add(document(), [])


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(FormatError):
        write(tmp_path, [[1, 2], [1000]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b"])
def test_a_name_that_cannot_name_a_file_is_refused(tmp_path, name):
    with pytest.raises(OptionError, match="needs a name"):
        ShardWriter(tmp_path, name, 1000)


def test_an_unfinished_shard_has_no_name_yet(tmp_path):
    (tmp_path / ".s-00000.npy.part").write_bytes(b"what a killed writer left, longer than what comes now" * 9)
    with ShardWriter(tmp_path, "s", 1000) as writer:
        writer.add(document(), [3])
        assert all(path.name.startswith(".") for path in tmp_path.iterdir())
        [shard] = writer.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert Tokens(tmp_path, [shard], 1000).slice(0, 1).tolist() == [3]


@pytest.mark.parametrize("suffix", [".npy", ".docs.npy", ".docs.jsonl.gz"])
def test_one_changed_byte_is_found(tmp_path, suffix):
    data = make_data(tmp_path)
    manifest = read_manifest(data)
    manifest.verify(data)
    path = data / "tokens" / f"made-00000{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerifyError, match="made-00000"):
        manifest.verify(data)
    path.unlink()
    with pytest.raises(MissingError, match="prepare the data again"):
        manifest.verify(data)


def test_a_shorter_file_is_told_where_it_is_used(tmp_path):
    shards = write(tmp_path, [[1, 2, 3]])
    (tmp_path / "s-00000.npy").write_bytes(_header(np.dtype("<u2"), 2) + bytes(4))
    with pytest.raises(FormatError, match=r"\(3,\) on record"):
        Tokens(tmp_path, shards, 1000).slice(0, 1)
    (tmp_path / "s-00000.npy").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="cannot be read"):
        Tokens(tmp_path, shards, 1000).slice(0, 1)
    with pytest.raises(OptionError, match="the source has 3"):
        Tokens(tmp_path, shards, 1000).slice(2, 4)


def test_more_tokens_than_31_bits_lie_mapped(tmp_path):
    """5 GB that take no room on disk; one slice at the end needs no memory to speak of."""
    n = 2**31 + 100
    path = tmp_path / "s-00000.npy"
    with path.open("wb") as file:
        file.write(_header(np.dtype("<u2"), n))
        os.truncate(path, 128 + 2 * n)
        file.seek(128 + 2 * (n - 2))
        file.write(np.array([7, 8], "<u2").tobytes())
    with (tmp_path / "s-00000.docs.npy").open("wb") as file:
        file.write(_header(np.dtype("<u8"), 3) + np.array([0, n - 5, n], "<u8").tobytes())
    shard = Shard("s-00000", "s", False, n, 2, "", "", "")
    tokens = Tokens(tmp_path, [shard, shard], 1000)
    assert len(tokens) == 2 * n
    assert tokens.slice(n - 3, n + 1).tolist() == [0, 7, 8, 0]
    assert tokens.starts(n - 10, 2 * n).tolist() == [n - 5, n, 2 * n - 5]
    assert [(piece.shard, piece.document) for piece in tokens.documents_at(n - 6, n + 1)] == [(0, 0), (0, 1), (1, 0)]
    ids, _ = tokens._open(0)
    assert isinstance(ids, np.memmap)


def test_manifests_that_are_none(tmp_path):
    with pytest.raises(MissingError, match="camelid prepare"):
        read_manifest(tmp_path)
    data = make_data(tmp_path)
    path, good = data / "manifest.json", json.loads((data / "manifest.json").read_text())
    for content, kind, says in [
        ("{", FormatError, "not a readable manifest"),
        ("[]", FormatError, "not a manifest"),
        (json.dumps(good | {"version": 9}), UnsupportedError, "version 9"),
        (json.dumps(good | {"shards": [{"name": "x"}]}), FormatError, "shard is not described"),
        (json.dumps({"version": 1}), FormatError, "not as expected"),
    ]:
        path.write_text(content, encoding="utf-8")
        with pytest.raises(kind, match=says):
            read_manifest(data)
