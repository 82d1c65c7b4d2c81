"""`camelid data show` prints what is learned, and its share."""

from __future__ import annotations

import json

import pytest

from camelid.cli import main
from camelid.data.chats.prepare import prepare_chats
from tests.data.chats.chat_models import chatml, write_lines

RECORDS = {
    "conversations": {
        "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So [it] is."}]
    },
    "preferences": {"prompt": "Why?", "chosen": "So [it] is.", "rejected": "No.", "grade": "better"},
    "prompts": {"question": "Why?", "answer": "#### 2"},
}


@pytest.fixture(params=sorted(RECORDS))
def stage(request, tmp_path):
    write_lines(tmp_path / "a.jsonl", [RECORDS[request.param]])
    table = {"name": "a", "kind": "jsonl", "path": "a.jsonl", "licence": "MIT"}
    prepare_chats([table], tmp_path / "sft" / "data", request.param, chatml(), 200, base=tmp_path, workers=1)
    return request.param, tmp_path


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(["data", *map(str, arguments)])
    return end.value.code, capsys.readouterr()


def test_show(stage, capsys):
    form, folder = stage
    code, out = run("show", folder, "--stage", "sft", capsys=capsys)
    assert code == 0
    if form == "prompts":
        assert "nothing of it is learned" in out.out
        assert "answer #### 2" in out.out
    else:
        assert "So␣[it]␣is.<|im_end|>" in out.out
        assert "<|im_start|>user\nWhy?<|im_end|>" in out.out
        assert "in colour: what is learned, " in out.out
    assert ("grade better" in out.out) == (form == "preferences")


def test_show_as_json(stage, capsys):
    form, folder = stage
    code, out = run("show", folder / "sft", "--row", 3, "--json", capsys=capsys)
    shown = json.loads(out.out)
    assert code == 0
    assert (shown["form"], shown["row"]) == (form, 3)
    for piece in shown["pieces"]:
        assert len(piece["ids"]) == len(piece["learned"])
        assert piece["licence"] == "MIT"
    learned = [each for piece in shown["pieces"] for each in piece["learned"]]
    assert shown["share"]["row"] == sum(learned) / len(learned) == pytest.approx(shown["share"]["data"])
    assert any(learned) == (form != "prompts")


def test_verify_report_and_mistakes(stage, capsys):
    form, folder = stage
    assert run("verify", folder / "sft", capsys=capsys)[0] == 0
    assert run("report", folder / "sft", "--json", capsys=capsys)[0] == 0
    code, out = run("show", folder, "--stage", "dpo", capsys=capsys)
    assert code == 2
    assert "dpo: no prepared data" in out.err
    if form == "conversations":
        code, out = run("show", folder, "--context", 5, capsys=capsys)
        assert code == 2
        assert "raise it to that" in out.err
