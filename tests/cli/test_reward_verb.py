"""camelid reward as a person calls it, on a tiny reward model."""

from __future__ import annotations

import json

import pytest

from camelid.cli.flags import run_verb
from camelid.errors import FormatError, MissingError, OptionError, UnsupportedError
from camelid.weights.convert import save_weights
from camelid.weights.open import open_weights
from tests.train.chatty import make_chat_model, make_reward_model


@pytest.fixture
def model(tmp_path):
    """A folder with a scalar head."""
    return str(make_reward_model(tmp_path / "judge", make_chat_model(tmp_path / "base")))


def run(capsys, *arguments):
    assert run_verb("reward", list(arguments)) == 0
    return capsys.readouterr().out


def test_answers(model, capsys):
    asked = (model, "--prompt", "A llama?", "--answer", "Yes.", "--answer", "No, a hill.")
    rewards = json.loads(run(capsys, *asked, "--json"))["rewards"]
    assert len(rewards) == 2
    assert rewards[0] != rewards[1]
    shown = run(capsys, *asked).splitlines()
    best = "Yes." if rewards[0] > rewards[1] else "No, a hill."
    assert best in shown[1]
    (alone,) = json.loads(run(capsys, model, "--prompt", "A llama?", "--answer", "Yes.", "--json"))["rewards"]
    assert alone == rewards[0]


def test_preferences(model, capsys, tmp_path):
    rows = [{"prompt": f"{n}?", "chosen": f"{n}.", "rejected": "?", "grade": "better"} for n in range(5)]
    rows.append({"prompt": "a", "chosen": "b", "rejected": "b"})
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    found = json.loads(run(capsys, model, "--file", str(file), "--json"))
    assert found["n"] == 5
    assert found["grades"]["better"]["share"] == found["accuracy"]
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert sum(found["left_out"].values()) == 1
    assert "95 % interval" in run(capsys, model, "--file", str(file))
    assert json.loads(run(capsys, model, "--file", str(file), "--limit", "2", "--json"))["n"] == 2


def test_conversations(model, capsys, tmp_path):
    asked = [{"role": "user", "content": "A llama?"}, {"role": "assistant", "content": "Yes."}]
    more = [*asked, {"role": "user", "content": "And a hill?"}, {"role": "assistant", "content": "No."}]
    file = tmp_path / "talks.jsonl"
    file.write_text("\n".join(json.dumps({"messages": messages}) for messages in (more, asked)))
    rewards = json.loads(run(capsys, model, "--file", str(file), "--json"))["rewards"]
    alone = run(capsys, model, "--prompt", "A llama?", "--answer", "Yes.", "--json")
    assert rewards[1:] == json.loads(alone)["rewards"]
    assert rewards[0] != rewards[1]
    assert "Yes." in run(capsys, model, "--file", str(file))
    for wrong, why in (
        (more[:3], "ends with the user"),
        ([*asked[:1], {"role": "assistant", "content": "x" * 9999}], "tokens"),
    ):
        file.write_text("\n".join(json.dumps({"messages": messages}) for messages in (asked, wrong)))
        with pytest.raises(FormatError, match=rf"record 2: .*{why}"):
            run_verb("reward", [model, "--file", str(file)])


def test_mistakes_are_one_line(model, tmp_path):
    with pytest.raises(OptionError, match="--prompt with --answer, or --file"):
        run_verb("reward", [model])
    with pytest.raises(OptionError, match="--answer: there is none"):
        run_verb("reward", [model, "--prompt", "a"])
    with pytest.raises(OptionError, match="has no scalar head"):
        run_verb("reward", [str(tmp_path / "base"), "--prompt", "a", "--answer", "b"])
    with pytest.raises(MissingError, match="no such file"):
        run_verb("reward", [model, "--file", str(tmp_path / "none.jsonl")])
    (tmp_path / "bad.jsonl").write_text("[1]\n")
    with pytest.raises(FormatError, match="line 1 is no JSON object"):
        run_verb("reward", [model, "--file", str(tmp_path / "bad.jsonl")])


def test_it_is_a_hugging_face_folder_only(model, tmp_path):
    with pytest.raises(UnsupportedError, match="write it with --to hf"):
        save_weights(model, tmp_path / "judge.gguf", format="gguf")
    assert open_weights(save_weights(model, tmp_path / "copy", format="hf", quant="F32")).config.scalar_head
