"""Through the same machinery as documents: the same bytes however it is run; every record accounted for; refusals."""

from __future__ import annotations

import gzip
import importlib.util
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from camelid.data.chats import tasks
from camelid.data.chats.model import ChatModel, open_chat_model
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.prepare import prepare_chats
from camelid.data.chats.rows import ConversationRows
from camelid.data.chats.show import row_of
from camelid.data.manifest import read_manifest
from camelid.data.report.report import find_data
from camelid.data.verifying import Verifier
from camelid.errors import FormatError, OptionError, VerifyError
from camelid.pedigree import read_pedigree
from tests.data.chats.chat_models import CHATML, chat_tokenizer, chatml, conversations, write_lines

ASKED = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


def prepare(folder: Path, sources=None, form="conversations", context=500, model=None, name="data", **options):
    workers = options.pop("workers", 1)
    named = [{"name": "a", "kind": "jsonl", "path": "a.jsonl"}] if sources is None else sources
    read = ChatDataOptions(sources=named, **options)
    return prepare_chats(read, folder / name, form, model or chatml(), context, base=folder, workers=workers, seed=5)


def files_of(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path.read_bytes() for name, path in files.items() if name not in ("run.json", ".lock")}
    plan = json.loads(kept.pop("plan.json"))
    return {**kept, "plan.json": json.dumps(plan).encode()}


@pytest.mark.slow
def test_the_same_bytes_for_any_number_of_workers(tmp_path):
    lines = [{"messages": each} for each in conversations(60, 1)]
    write_lines(tmp_path / "a.jsonl", [*lines, lines[3]])
    source = [{"name": "a", "kind": "jsonl", "path": "a.jsonl", "unit_bytes": 4000}]
    one, two = (prepare(tmp_path, source, name=f"data{n}", workers=n, validation=0.2) for n in (1, 2))
    assert len(list(one.folder.glob("documents/*"))) > 2
    assert files_of(one.folder) == files_of(two.folder)
    assert one.manifest.fingerprint() == two.manifest.fingerprint()
    one.manifest.verify(one.folder)
    exact = next(stats for stats in one.stage_stats if stats.name == "dedup.exact")
    assert exact.documents_in - exact.documents_out == 1
    again = prepare(tmp_path, source, name="data1", validation=0.2)
    assert again.already
    assert again.notes == one.notes
    assert "a: read as messages" in one.notes
    learned = sum(int(np.load(path).sum()) for path in one.folder.glob("tokens/*.mask.npy"))
    assert one.stage_stats[-1].changed["learned tokens"] == learned


def _killed(folder: Path, after: int) -> None:
    seen, write = 0, tasks.save_stage_stats

    def save(path, stats):
        nonlocal seen
        write(path, stats)
        seen += 1
        if seen == after:
            os.kill(os.getpid(), signal.SIGKILL)

    tasks.save_stage_stats = save
    prepare(folder, [{"name": "a", "kind": "jsonl", "path": "a.jsonl", "unit_bytes": 3000}])


def test_it_goes_on_after_a_kill(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"messages": each} for each in conversations(40, 2)])
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(tmp_path, 2))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list((tmp_path / "data" / "work" / "read").glob("*.json"))) == 2
    source = [{"name": "a", "kind": "jsonl", "path": "a.jsonl", "unit_bytes": 3000}]
    assert files_of(prepare(tmp_path, source).folder) == files_of(prepare(tmp_path, source, name="other").folder)


@pytest.mark.slow
def test_kinds_of_files_give_the_same_ids(tmp_path):
    lines = [{"id": str(i), "messages": each} for i, each in enumerate(conversations(20, 3))]
    text = write_lines(tmp_path / "a.jsonl", lines).read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text))
    paths = {"jsonl": ["a.jsonl", "b.jsonl.gz"]}
    if importlib.util.find_spec("zstandard"):
        import zstandard

        (tmp_path / "c.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(text))
        paths["jsonl"].append("c.jsonl.zst")
    if importlib.util.find_spec("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(lines), tmp_path / "d.parquet")
        paths["parquet"] = ["d.parquet"]
    if importlib.util.find_spec("datasets"):
        import datasets

        datasets.Dataset.from_list(lines).save_to_disk(str(tmp_path / "e"))
        paths["dataset"] = ["e"]
    shards = set()
    for kind, names in paths.items():
        for name in names:
            made = prepare(tmp_path, [{"name": "a", "kind": kind, "path": name}], name=f"made-{name}")
            [shard] = made.manifest.shards
            shards.add((shard.sha256, shard.starts_sha256, shard.mask_sha256))
    assert len(shards) == 1


def test_a_changed_mask_is_found(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"messages": each} for each in conversations(5, 4)])
    folder = prepare(tmp_path).folder
    [path] = folder.glob("tokens/*.mask.npy")
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    manifest = read_manifest(folder)
    with pytest.raises(VerifyError, match="mask"), Verifier(folder / "tokens", manifest.shards):
        pass
    path.write_bytes(data[:-1])
    with pytest.raises(FormatError, match="mask"):
        ConversationRows(folder, 500, 1, 0).step(0)


def refusal(tmp_path, lines, message, **options):
    write_lines(tmp_path / "a.jsonl", lines)
    with pytest.raises(OptionError) as caught:
        prepare(tmp_path, **options)
    text = str(caught.value)
    assert message in text, text
    assert "\n" not in text


def test_records_of_several_layouts_are_not_mixed(tmp_path):
    alpaca = {"instruction": "Why?", "output": "So."}
    refusal(tmp_path, [{"messages": ASKED}, alpaca], "mixes layouts: messages (a.jsonl#0), Alpaca")
    refusal(tmp_path, [{"code": "x", "id": 1}], "no conversations in it; its fields: code, id; known are")
    refusal(tmp_path, [{"messages": ASKED}], "no preferences in it", form="preferences")


def test_few_misfits_are_counted_and_many_refused(tmp_path):
    good = [{"messages": each} for each in conversations(30, 6)]
    bad = {"id": "bad", "messages": ASKED[:1]}
    refusal(tmp_path, [*good[:5], bad], "1 of 6 records do not fit as conversations, 1 for: ends with the user")
    made = prepare(tmp_path, most_refused=0.5)  # the folder is as if nothing had been
    assert made.stage_stats[0].dropped == {"ends with the user, not with an answer": 1}
    assert made.stage_stats[0].examples["ends with the user, not with an answer"][0]["id"] == "bad"
    assert any("1 of 6 left out: ends with the user" in note for note in made.notes)
    strict = [{"name": "a", "kind": "jsonl", "path": "a.jsonl", "malformed": "error"}]
    with pytest.raises(FormatError, match="ends with the user, not with an answer at bad"):
        prepare(tmp_path, strict, name="strict")


def test_what_is_too_long_is_counted(tmp_path):
    lines = [{"id": str(i), "messages": each} for i, each in enumerate(conversations(40, 7, most_turns=5))]
    lines.append({"id": "long", "messages": [ASKED[0], {"role": "assistant", "content": "so " * 400}]})
    refusal(tmp_path, lines, "raise the context", too_long="error")
    dropped = prepare(tmp_path, context=250)
    cut = prepare(tmp_path, context=250, too_long="cut", name="cut")
    left_out, last = dropped.stage_stats[-1].dropped["longer than the context"], cut.stage_stats[-1]
    assert left_out > 1
    assert last.changed["turns cut from the beginning"] + last.dropped["longer than the context"] == left_out
    rows = ConversationRows(cut.folder, 250, 1, 0)
    for source in rows.sources:
        for number in range(source.n_documents):
            ids, mask = source.document(number)
            assert len(ids) <= 250
            assert mask[-1] == 0
            assert mask[-2] == 1, "the last answer's end is there, and learned"
    with pytest.raises(OptionError, match=r'data\.too_long "drop" → "cut"; .*or delete the folder'):
        prepare(tmp_path, context=250, too_long="cut")
    refusal(tmp_path, lines[-1:], "none of 1 conversations fits into the context of 250", context=250, name="none")


def test_no_learned_token_at_all_is_an_error(tmp_path):
    read_only = [ASKED[0], {**ASKED[1], "weight": 0}]
    refusal(tmp_path, [{"messages": read_only}], "no token of it is learned")
    silent = ChatModel(chat_tokenizer(), template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    refusal(tmp_path, [{"messages": ASKED}], "the chat format shows no mask", model=silent)
    strict = ChatModel(
        chat_tokenizer(),
        template="{% if messages[0]['role'] != 'system' %}{{ raise_exception('No.') }}{% endif %}" + CHATML,
    )
    refusal(tmp_path, [{"messages": ASKED}], "the chat format refuses it", model=strict)


def test_options_that_do_not_fit(tmp_path):
    for options, message in (
        ({"rules": {"pii": {}}}, "rules"),
        ({"dedup": {"paragraph": True}}, "dedup.paragraph"),
        ({"too_long": "trim"}, "too_long"),
        ({"sources": [{"name": "a", "kind": "text", "path": "a"}]}, "holds no records"),
        ({"sources": [{"name": "a", "kind": "jsonl", "path": "a", "text_field": "x"}]}, "text_field"),
    ):
        with pytest.raises(OptionError, match=message):
            ChatDataOptions(**options)
    with pytest.raises(OptionError, match="no 'chats'"):
        prepare_chats([], tmp_path, "chats", chatml(), 100)


def test_text_of_tests_is_taken_out(tmp_path):
    lines = [{"id": str(i), "messages": each} for i, each in enumerate(conversations(9, 8))]
    item = " ".join(f"word{n}" for n in range(15))
    lines.append({"id": "test", "messages": [{"role": "user", "content": f"Say {item} now"}, ASKED[1]]})
    write_lines(tmp_path / "a.jsonl", lines)
    write_lines(tmp_path / "test.jsonl", [{"question": item}])
    made = prepare(tmp_path, decontaminate={"against": [{"path": "test.jsonl", "fields": ["question"]}]})
    assert made.manifest.sources[0].documents == 9
    assert not any(
        "word3" in piece["text"] for row in ConversationRows(made.folder, 500, 9, 0).rows_of(0) for piece in row
    )


def test_a_row_is_shown(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"messages": each} for each in conversations(12, 9)])
    made = prepare(tmp_path, name="sft/data")
    shown = row_of(find_data(tmp_path, "sft"), 1)
    assert shown["form"] == "conversations"
    batch = ConversationRows(made.folder, 500, 1, 5).step(1)
    ids = [id for piece in shown["pieces"] for id in piece["ids"]]
    assert ids == batch.ids[0, : len(ids)].tolist()
    learned = [each for piece in shown["pieces"] for each in piece["learned"]]
    assert sum(learned) == batch.n_trained
    assert shown["share"]["row"] == sum(learned) / len(learned)
    assert find_data(tmp_path) == find_data(tmp_path / "sft") == made.folder
    pairs = [{"prompt": "Why?", "chosen": f"So {number}.", "rejected": "No."} for number in range(3)]
    write_lines(tmp_path / "a.jsonl", pairs)
    prepare(tmp_path, form="preferences", name="dpo/data")
    shown = row_of(find_data(tmp_path / "dpo"), 0)
    assert [piece["answer"] for piece in shown["pieces"]] == ["chosen", "rejected"]
    with pytest.raises(OptionError, match=r"several stages have data; .*dpo, sft"):
        find_data(tmp_path)


def test_finished_data_needs_its_files_no_more(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"messages": each} for each in conversations(6, 10)])
    made = prepare(tmp_path)
    assert read_pedigree(made.folder)["options"]["chats"]["form"] == "conversations"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(OptionError, match="the files of source a have changed"):
        prepare(tmp_path)
    path.unlink()
    again = prepare(tmp_path)
    assert again.already
    assert "source a: its files are not there any more; the data made from them is" in again.notes
    with pytest.raises(OptionError, match=r"chats\.context 500 → 400"):
        prepare(tmp_path, context=400)
    other = ChatModel(chat_tokenizer(), name="chatml")
    with pytest.raises(OptionError, match=r"chats\.chat_format .* → \"chatml\""):
        prepare(tmp_path, model=other)


@pytest.mark.slow
def test_real_records(tmp_path, smollm2_path):
    """Pairs of HH-RLHF, GSM8K's questions and self-instruct's tasks, with the default model."""
    data = Path(os.environ.get("CAMELID_TEST_DATA", "nowhere"))
    if not (data / "hh-rlhf").is_dir():
        pytest.skip("no hh-rlhf in the folder that CAMELID_TEST_DATA names")
    model = open_chat_model(smollm2_path)
    expected = {
        "preferences": ("hh-rlhf/harmless-base-test.jsonl.gz", "Anthropic's text", 2302, 902_373, 210_521),
        "prompts": ("gsm8k/train.jsonl.gz", "question", 7473, None, 0),
        "conversations": ("sft/seed_tasks.jsonl", "self-instruct", 174, 24_427, 10_912),
    }
    for form, (path, layout, count, tokens, learned) in expected.items():
        source = [{"name": "real", "kind": "jsonl", "path": str(data / path)}]
        made = prepare(tmp_path, source, form=form, context=1024, model=model, name=form)
        assert made.manifest.chats["layouts"] == {"real": layout}
        assert made.manifest.sources[0].documents == count
        changed = made.stage_stats[-1].changed
        assert tokens in (None, changed["tokens"])
        assert changed.get("learned tokens", 0) == learned
