"""Every file that camelid reads: where a good one lies, and what opens it. A format is a row."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from camelid.arena.cleaning.candidates import candidates
from camelid.arena.cleaning.clean import clean
from camelid.arena.config import read_config as read_arena
from camelid.arena.logs import open_battles, read_battles, save_battles
from camelid.arena.publish import publish, verify
from camelid.arena.ratings.options import RateOptions
from camelid.chat.conversation import Conversation
from camelid.data.chats.layouts import LAYOUTS, layout_of
from camelid.data.chats.model import read_chat_model
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.prepare import prepare_chats
from camelid.data.chats.show import row_of
from camelid.data.chats.tasks import as_chat
from camelid.data.document import Document
from camelid.data.manifest import read_manifest
from camelid.data.reading.documents import read_documents, read_parts
from camelid.data.sources import source_kind, source_options
from camelid.data.stage_stats import StageStats
from camelid.engine.request import SamplingParams
from camelid.model.options import ModelOptions
from camelid.model.rope import rope_table
from camelid.pedigree import read_pedigree, write_pedigree
from camelid.recipe import read_recipe, shipped_recipes
from camelid.tokens.templates.chat_format import FORMATS as CHAT_FORMATS
from camelid.tokens.templates.chat_format import choose_format
from camelid.tokens.templates.message import Message
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.training import TokenizerOptions
from camelid.train.report.inspect import overview
from camelid.train.runs import open_run
from camelid.train.stages.pretrain import PretrainOptions
from camelid.weights import open_weights, save_weights
from tests.data.chats.chat_models import chat_tokenizer, chatml
from tests.data.made import byte_tokenizer, make_data
from tests.tiny import tiny_config
from tests.tokens.vocabularies import small_llama2
from tests.weights.models import tiny_weights

TEXT = "Llamas live — in\n  the Andes ☺ 1234 [/INST] <s>"


@dataclass(frozen=True)
class Format:
    """A file of a folder of good ones, and what opens the folder."""

    file: str
    open: Callable[[Path], object]


def open_model(folder: Path) -> None:
    """Open a model of any format, read all of it, and use its tokenizer and template."""
    weights = open_weights(folder)
    for tensor in weights.tensors.values():
        tensor.array()
    with np.errstate(all="ignore"):
        rope_table(weights.config, np.arange(3))
    if weights.has_tokenizer:
        tokenizer = weights.tokenizer
        tokenizer.decode(tokenizer.encode(TEXT, bos=True))
        if weights.chat_template is not None:
            choose_format(tokenizer, weights.chat_template, None).render(tokenizer, [Message("user", TEXT)])


def open_tokenizer(folder: Path) -> None:
    """Open a tokenizer and use it both ways."""
    tokenizer = Tokenizer.open(folder)
    tokenizer.decode(tokenizer.encode(TEXT, bos=True, special=True))
    for id in (0, tokenizer.vocab_size - 1):
        tokenizer.token_bytes(id)


def open_recipe(folder: Path) -> None:
    """Read a recipe with all its tables, and what it would make."""
    from camelid.data.options import DataOptions
    from camelid.train.planning.devices import DEVICES
    from camelid.train.planning.plan import plan

    recipe = read_recipe(folder / "recipe.toml")
    recipe.table("data", DataOptions)
    options, tokenizer = recipe.table("pretrain", PretrainOptions), recipe.table("tokenizer", TokenizerOptions)
    config = recipe.table("model", ModelOptions).config(tokenizer.vocab_size, options.context)
    plan(config, options, next(iter(DEVICES.values()))).as_json()


def open_corpus(kind: str, name: str) -> Callable[[Path], None]:
    """Read a source of documents, dropping what is none."""

    def read(folder: Path) -> None:
        options = source_options({"kind": kind, "name": "a", "path": name, "licence": "x", "malformed": "drop"})
        for document in read_parts(source_kind(kind).file_parts(options, folder), options, StageStats("read")):
            document.as_json()

    return read


def open_run_folder(folder: Path) -> None:
    """What `camelid inspect` says of a run."""
    overview(open_run(folder / "run"))


def open_data(folder: Path) -> None:
    """A data folder, with its rows."""
    from camelid.data.batches import Batches

    data = folder / "data"
    manifest = read_manifest(data)
    manifest.open_tokenizer(data)
    batches = Batches(data, 16, 2, 0)
    batches.step(0)
    batches.rows_of(0)
    manifest.verify(data)


def open_chats(folder: Path) -> None:
    """Data folders of preferences and prompts, a row of each and their chat format; and records of preferences."""
    for form in ("preferences", "prompts"):
        data = folder / "chats" / form
        row_of(data, 1)
        read_chat_model(data / "tokenizer").chat_format.render(chat_tokenizer(), [Message("user", TEXT)])
    source = ChatDataOptions(sources=[{"kind": "jsonl", "name": "a", "path": "a.jsonl"}]).sources[0]
    for part in source_kind("jsonl").file_parts(source, folder / "chats"):
        for item in source_kind("jsonl").read(part, source):
            if isinstance(item, Document) and layout_of(item.meta, "preferences") is not None:
                as_chat(item, LAYOUTS["preferences"][1], source)


def open_conversation(folder: Path) -> None:
    """A conversation that was saved."""
    Conversation(None, SamplingParams()).read(folder / "conversation.json")  # type: ignore[arg-type] - no model needed


def open_votes(name: str) -> Callable[[Path], None]:
    """A log of votes, read and cleaned."""

    def open_it(folder: Path) -> None:
        read_battles([folder / "votes" / name])
        clean(candidates([folder / "votes" / name]))

    return open_it


def _hf(name: str) -> Format:
    return Format(f"hf/{name}", lambda folder: open_model(folder / "hf"))


VOTES = ("battles.jsonl", "battles.json", "x-conv.json", "train.csv", "crowd.csv", "battles.parquet")
FORMATS = [
    Format("model.gguf", lambda folder: open_model(folder / "model.gguf")),
    Format("llama2.gguf", lambda folder: open_model(folder / "llama2.gguf")),
    *map(
        _hf, ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    ),
    _hf("chat_template.jinja"),
    Format("sharded/model.safetensors.index.json", lambda folder: open_model(folder / "sharded")),
    Format("sharded/config.json", lambda folder: open_model(folder / "sharded")),
    Format("bin/pytorch_model.bin", lambda folder: open_model(folder / "bin")),
    Format("meta/params.json", lambda folder: open_model(folder / "meta")),
    Format("meta/consolidated.00.pth", lambda folder: open_model(folder / "meta")),
    Format("meta/camelid.json", lambda folder: open_model(folder / "meta")),
    Format("sentencepiece/tokenizer.model", lambda folder: open_tokenizer(folder / "sentencepiece")),
    Format("tiktoken/tokenizer.model", lambda folder: open_tokenizer(folder / "tiktoken")),
    Format("tokenizer/tokenizer.json", lambda folder: open_tokenizer(folder / "tokenizer")),
    Format("recipe.toml", open_recipe),
    Format("run.json", read_pedigree),
    Format("run/pretrain/metrics.jsonl", open_run_folder),
    Format("run/pretrain/step2-tokens1K/checkpoint.json", open_run_folder),
    Format("data/manifest.json", open_data),
    Format("data/tokenizer/tokenizer.json", open_data),
    Format("data/tokens/made-00000.npy", open_data),
    Format("data/tokens/made-00000.docs.npy", open_data),
    Format("data/tokens/made-00000.docs.jsonl.gz", open_data),
    *(
        Format(f"chats/{name}", open_chats)
        for name in (
            *("a.jsonl", "preferences/manifest.json", "preferences/tokenizer/chat_format.json"),
            *(f"preferences/tokens/a-00000{end}" for end in (".npy", ".mask.npy", ".docs.npy", ".docs.jsonl.gz")),
            *(f"prompts/tokens/a-00000{end}" for end in (".mask.npy", ".docs.jsonl.gz")),
        )
    ),
    Format("corpus.jsonl", open_corpus("jsonl", "corpus.jsonl")),
    Format("corpus.jsonl.gz", open_corpus("jsonl", "corpus.jsonl.gz")),
    Format("corpus.txt", open_corpus("text", "corpus.txt")),
    Format("corpus.parquet", open_corpus("parquet", "corpus.parquet")),
    Format("documents.jsonl.gz", lambda folder: list(read_documents(folder / "documents.jsonl.gz"))),
    Format("conversation.json", open_conversation),
    *(Format(f"votes/{name}", open_votes(name)) for name in VOTES),
    Format("votes/x.battles", lambda folder: open_battles(folder / "votes" / "x.battles")),
    Format("votes/board/board.json", lambda folder: verify(folder / "votes" / "board")),
    Format("votes/board/votes.jsonl", lambda folder: verify(folder / "votes" / "board")),
    Format("votes/arena.toml", lambda folder: read_arena(folder / "votes" / "arena.toml")),
]


def make_good(folder: Path) -> None:
    """Write a good file of every format into a folder."""
    config = tiny_config(vocab_size=320, dim=32, head_dim=8, ffn_dim=32)
    template = CHAT_FORMATS["chatml"].jinja
    llama3, llama2 = byte_tokenizer(), small_llama2("<|im_start|>", "<|im_end|>", "<|sep|>")
    weights = replace(tiny_weights("F32", config=config), load_tokenizer=lambda: llama3, sampling={"temperature": 0.5})
    save_weights(replace(weights, chat_template=template), folder / "hf", format="hf")
    (folder / "hf/generation_config.json").write_text('{"temperature": 0.6, "top_k": 40, "eos_token_id": [257, 256]}')
    if template and not (folder / "hf/chat_template.jinja").exists():
        (folder / "hf/chat_template.jinja").write_text(template)
    save_weights(weights, folder / "sharded", format="hf", shards=3)
    save_weights(weights, folder / "model.gguf", format="gguf", quant="Q8_0")
    small = tiny_weights("F16", config=replace(config, vocab_size=llama2.vocab_size))
    small = replace(small, load_tokenizer=lambda: llama2, chat_template=template)
    save_weights(small, folder / "llama2.gguf", format="gguf")
    save_weights(small, folder / "meta", format="meta", shards=2)
    _torch_folder(folder, weights)
    ranks = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    for name, data in (("sentencepiece", llama2.to_meta()), ("tiktoken", ranks.encode())):
        (folder / name).mkdir()
        (folder / name / "tokenizer.model").write_bytes(data)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/tokenizer.json").write_text(llama2.to_json(), encoding="utf-8")
    _made_by_training(folder)
    _documents(folder)
    make_data(folder, vocab_size=320)
    _chats(folder / "chats")
    _votes(folder / "votes")


def _chats(folder: Path) -> None:
    folder.mkdir()
    rows = [{"prompt": f"{TEXT} {n}", "chosen": f"So {n}.", "rejected": "No.", "grade": "better"} for n in range(9)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "a", "kind": "jsonl", "path": "a.jsonl"}
    for form in ("preferences", "prompts"):
        prepare_chats([source], folder / form, form, chatml(), 300, base=folder, workers=1)  # type: ignore[arg-type]


def _torch_folder(folder: Path, weights: Any) -> None:
    """Hugging Face's folder with torch's file, which needs no torch to be written."""
    from camelid.weights.formats.tensor_names import hf_name
    from camelid.weights.formats.torch_write import TorchWriter

    shutil.copytree(folder / "hf", folder / "bin")
    (folder / "bin/model.safetensors").unlink()
    rows = {hf_name(name): (tensor.quant, tensor.shape) for name, tensor in weights.tensors.items()}
    writer = TorchWriter(folder / "bin/pytorch_model.bin", rows)
    for name, tensor in weights.tensors.items():
        writer.write(hf_name(name), tensor.blocks())
    writer.close()


def _made_by_training(folder: Path) -> None:
    shutil.copy(shipped_recipes()["tiny"], folder / "recipe.toml")
    write_pedigree(folder, "train", [folder / "recipe.toml"], {"steps": 3}, {"tokens": 1000})
    stage = folder / "run/pretrain"
    (stage / "step2-tokens1K").mkdir(parents=True)
    shutil.copy(folder / "recipe.toml", folder / "run/recipe.toml")
    lines: list[dict[str, Any]] = [{"event": "start", "step": 0, "steps": 9, "device": "CPU", "ranks": 1, "time": 1.5}]
    lines += [{"step": n, "tokens": 512 * n, "loss": 5 / n, "seconds": 0.5, "time": n + 2.5} for n in (1, 2, 3, 4)]
    lines += [{"event": "save", "step": 2, "folder": "step2-tokens1K", "time": 7.5}]
    (stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (stage / "step2-tokens1K/checkpoint.json").write_text('{"step": 2, "tokens": 1024, "data": "abc", "files": {}}')


def _documents(folder: Path) -> None:
    rows = [{"text": f"{TEXT} {n}", "id": f"d{n}", "source": "a", "url": "https://a.example"} for n in range(20)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "corpus.jsonl").write_text(text)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "documents.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "corpus.txt").write_text("\n\n".join(row["text"] for row in rows))
    (folder / "conversation.json").write_text(json.dumps([{"role": "user", "content": TEXT}] * 2))
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "corpus.parquet")


def _votes(folder: Path) -> None:
    """The same few votes in every form that is read."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    talk = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "So."}]
    about = {"judge": "v", "turn": 1, "anony": True, "language": "English"}
    rows: list[dict[str, Any]] = [
        {"question_id": f"q{n}", "model_a": f"m{n % 3}", "model_b": f"m{(n + 1) % 3}", "winner": "model_a", **about}
        | {"tstamp": 1.7e9 + n, "conversation_a": talk, "conversation_b": talk}
        for n in range(9)
    ]
    (folder / "battles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "battles.json").write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "battles.parquet")
    state = {"roles": ["U", "A"], "offset": 0, "messages": [["U", TEXT], ["A", "So."]], "model_name": "m"}
    logged = [
        {"type": "leftvote", "models": ["", ""], "ip": "v", "tstamp": 1.7e9 + n}
        | {"states": [{**state, "conv_id": f"c{n}", "model_name": f"m{n % 3 + side}"} for side in (0, 1)]}
        for n in range(9)
    ]
    (folder / "x-conv.json").write_text("".join(json.dumps(row) + "\n" for row in logged))
    head = "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
    lines = "".join(f'{n},m{n % 3},m{n % 2 + 3},"[""Hi""]","[""So.""]","[""No.""]",1,0,0\n' for n in range(9))
    (folder / "train.csv").write_text(head + lines)
    (folder / "crowd.csv").write_text(
        "id,winner,left,right\n" + "".join(f"{n},tie,m{n % 3},n{n % 2}\n" for n in range(9))
    )
    save_battles(read_battles([folder / "battles.jsonl"]), folder / "x.battles")
    publish(clean(candidates([folder / "battles.jsonl"])), folder / "board", RateOptions())
    (folder / "arena.toml").write_text('name = "A"\n[limits]\nturns = 3\n[[models]]\nname = "a"\nweight = 2\n')
