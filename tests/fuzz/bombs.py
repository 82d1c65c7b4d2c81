"""Small files that would take memory or time without end from a reader that trusts them. A bomb is a row."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_NESTED = b"".join(
    b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(1, 100)
)  # t = (t, t), again and again
_PAIRS = b"\x80\x02)" + _NESTED  # leaves 2^99 empty tuples on the stack, in a few hundred bytes


@dataclass(frozen=True)
class Bomb:
    """A name, the good file in whose place it is put, and what writes it there."""

    name: str
    file: str
    make: Callable[[Path], object]


def _text(name: str, file: str, text: str) -> Bomb:
    return Bomb(name, file, lambda path: path.write_text(text))


def _changed(name: str, file: str, **values: object) -> Bomb:
    """A JSON file with other values."""
    return Bomb(name, file, lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **values})))


def _recipe(name: str, more: str) -> Bomb:
    """The recipe with lines at its end, after other words for the same are taken out."""

    def make(path: Path) -> None:
        keys = {line.partition("=")[0].strip() for line in more.splitlines() if "=" in line}
        lines = path.read_text().splitlines()
        kept = [line for line in lines if line.partition("=")[0].strip() not in keys]
        table = more.splitlines()[0]
        at = kept.index(table) + 1 if table in kept else len(kept)
        path.write_text("\n".join([*kept[:at], *more.splitlines()[1:], *kept[at:]]))

    return Bomb(name, "recipe.toml", make)


def _pickle(name: str, program: bytes) -> Bomb:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", program)
            archive.writestr("m/data/0", bytes(16))

    return Bomb(name, "bin/pytorch_model.bin", make)


def _safetensors(name: str, header: str) -> Bomb:
    def make(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))

    return Bomb(name, "hf/model.safetensors", make)


def _gguf(name: str, tensors: int, fields: int, content: bytes, zeros: int) -> Bomb:
    """A GGUF whose end is a hole in the file, which takes no disk."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + content)
            file.truncate(file.tell() + zeros)

    return Bomb(name, "model.gguf", make)


def _key(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()


def _zip_of_many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"m/data/{number:030}", b"")


def _row(shape: list[str]) -> str:
    return '{"a":{"dtype":"F32","shape":[' + ",".join(shape) + '],"data_offsets":[0,8]}}'


_ROW = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
_TUPLES = b"\x80\x02" + b"".join([b"("] * 50_000) + b"t" * 50_000
_SHAPE = (
    b"\x80\x02(" + b"K\x01" * 100_000 + b"tq\x00" + b"ctorch._utils\n_rebuild_parameter\nq\x01" + b"h\x01h\x00R" * 9000
)
BOMBS = [
    _pickle("a key whose hash takes 2^99 steps", _PAIRS + b"}h\x63N" + b"s."),
    _pickle("a key that is such a tuple", b"\x80\x02}" + _PAIRS[2:] + b"Ns."),
    _pickle("a storage named by such a tuple", _PAIRS + b"Q."),
    _pickle("a call of such a tuple", _PAIRS + b")R."),
    _pickle("a set of such tuples", b"\x80\x04\x8f(" + _PAIRS[2:] + b"\x90."),
    _pickle("a long list of arguments given many times", _SHAPE + b"."),
    _pickle(
        "a number of a million bits as a key",
        b"\x80\x02}\x8b" + struct.pack("<i", 125_000) + b"\x7f" * 125_000 + b"Ns.",
    ),
    _pickle("tuples 50,000 deep", _TUPLES + b"."),
    _pickle("four million lists", b"\x80\x02" + b"]" * 4_000_000 + b"."),
    _pickle("a list in itself", b"\x80\x02]q\x00h\x00a."),
    _pickle("a text of 15 MB given many times", pickle.dumps(["x" * 15_000_000] * 100, 2)),
    Bomb("a zip of 60,000 members", "bin/pytorch_model.bin", _zip_of_many),
    _safetensors("2,000 dimensions", _row(["1"] * 2000)),
    _safetensors("dimensions whose product has 38,000 digits", _row(["9" * 19] * 2000)),
    _safetensors("a name twice", f'{{"a":{_ROW},"a":{_ROW}}}'),
    _safetensors("five million empty lists", '{"a":[%s[]]}' % ("[]," * 5_000_000)),
    _safetensors("lists 100,000 deep", '{"a":%s' % ("[" * 100_000)),
    _safetensors("an offset of 5,000 digits", '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,%s]}}' % ("9" * 5000)),
    _gguf("eight million fields", 0, 8_000_000, b"", 110_000_000),
    _gguf("four million tensors", 4_000_000, 0, b"", 110_000_000),
    _gguf("a list of 100 million numbers", 0, 1, _key("a") + struct.pack("<IIQ", 9, 0, 10**8), 10**8),
    _gguf("a list of ten million texts", 0, 1, _key("a") + struct.pack("<IIQ", 9, 8, 10**7), 8 * 10**7),
    _gguf("a text of 200 MB", 0, 1, _key("a") + struct.pack("<IQ", 8, 2 * 10**8), 2 * 10**8),
    _gguf("a name of 200 MB", 0, 1, struct.pack("<Q", 2 * 10**8), 2 * 10**8),
    _changed("a width of 300 digits", "hf/config.json", hidden_size=10**300, num_attention_heads=1, head_dim=None),
    _changed("10^15 layers", "hf/config.json", num_hidden_layers=10**15),
    _changed("a context of 10^18", "hf/config.json", max_position_embeddings=10**18),
    _changed("a rotary base of 10^308", "hf/config.json", rope_theta=1e308),
    _changed("four million values", "hf/config.json", notes=[[]] * 4_000_000),
    _changed("a multiplier of 10^308", "meta/params.json", ffn_dim_multiplier=1e308),
    _changed("a width of 300 digits", "meta/params.json", dim=10**300, n_heads=1),
    _text("lists 100,000 deep", "hf/config.json", "[" * 100_000),
    _changed("lists 900 deep", "run.json", command=json.loads("[" * 900 + "]" * 900)),
    _changed(
        "a million shards",
        "sharded/model.safetensors.index.json",
        weight_map={str(n): f"{n}.safetensors" for n in range(200_000)},
    ),
    _text("a key of 30,000 parts", "recipe.toml", ".".join(["a"] * 30_000) + " = 1"),
    _text("a quoted key of 60,000 parts", "recipe.toml", ".".join(['""'] * 60_000) + " = 1"),
    _text("a key of 40,000 quoted quotes", "recipe.toml", ".".join(['"\\""'] * 40_000) + " = 1"),
    _text("a table of 100,000 parts", "recipe.toml", "[" + ".".join(["a"] * 100_000) + "]"),
    _text("a key of 30,000 parts inside", "recipe.toml", "x = {" + ".".join(["a"] * 30_000) + " = 1}"),
    _text("a number of 250,000 digits", "recipe.toml", "seed = " + "9" * 250_000),
    _text("a number of 250,000 digits, in hex", "recipe.toml", "seed = 0x" + "f" * 250_000),
    _text("quotes and backslashes", "recipe.toml", '"\\' * 100_000),
    _text("100 MB", "recipe.toml", "#" * 100_000_000),
    _recipe("10^9 steps, each saved", "[pretrain]\nsteps = 1000000000\nsave_every = 1\nkeep_every = 1"),
    _recipe("10^18 steps", f"[pretrain]\nsteps = {10**18}\nsave_every = 1\nkeep_every = 7"),
    _recipe("10^12 layers", f"[model]\nn_layers = {10**12}"),
    _recipe("a batch of 10^18 tokens", f"[pretrain]\nbatch_tokens = {2**59}"),
]
