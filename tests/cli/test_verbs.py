"""The verbs as a user meets them: output, JSON, exit status, one line for a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

DECK = "The best thing about AI is its ability to"


@pytest.fixture(scope="module")
def run(smollm2_path, tmp_path_factory):
    """Run `camelid` in a process of its own, offline, with the default model in place."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "CAMELID_HOME": str(home), "COLUMNS": "120", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-m", "camelid", "pull", "smollm2:135m-instruct"], env=environment, check=True)

    def run(*arguments: str, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "camelid", *arguments],
            input=stdin,
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == status, done.stderr
        return done

    return run


def test_a_piped_question_is_answered(run):
    done = run("chat", "--temperature", "0", stdin="What is the capital of France?\n")
    assert "Paris" in done.stdout


@pytest.mark.slow
def test_next_shows_the_table_and_gives_it_as_json(run):
    shown = run("next", DECK).stdout
    assert "probability" in shown
    table = json.loads(run("next", DECK, "--json").stdout)
    assert set(table) == {"prompt_ids", "tokens", "sum"}
    assert set(table["tokens"][0]) == {"rank", "id", "text", "probability", "cumulative", "logprob"}
    assert abs(table["sum"] - 1) < 1e-6
    greedy = json.loads(run("generate", DECK, "--temperature", "0", "--max-tokens", "1", "--json").stdout)
    assert greedy["ids"] == [table["tokens"][0]["id"]]


@pytest.mark.slow
def test_next_explains_its_stages(run):
    shown = run("next", "The capital of France is", "--explain").stdout
    for words in ("Text becomes tokens", "logit lens", "distribution", "Sampling, step by step", "Paris"):
        assert words in shown


@pytest.mark.slow
def test_generate_as_json_and_as_text_agree(run):
    flags = ("--temperature", "0.8", "--seed", "3", "--max-tokens", "12")
    done = json.loads(run("generate", DECK, *flags, "--json").stdout)
    assert {"text", "ids", "finish_reason", "usage"} <= set(done)
    assert run("generate", DECK, *flags).stdout == done["text"] + "\n"
    assert run("generate", *flags, stdin=DECK).stdout == done["text"] + "\n"


@pytest.mark.slow
def test_generate_by_beam_search(run):
    done = json.loads(run("generate", DECK, "--beams", "3", "--max-tokens", "6", "--json").stdout)
    assert len(done["ids"]) == 6
    refused = run("generate", DECK, "--beams", "3", "--draft-tokens", "4", status=2)
    assert "--beams: does not go together with --draft-tokens" in refused.stderr


@pytest.mark.slow
def test_guesses_change_no_text_and_a_draft_model_is_not_left_idle(run):
    flags = ("One two three one two three one two", "--seed", "3", "--max-tokens", "16")
    plain = run("generate", *flags).stdout
    for number in ("0", "4", "auto"):
        assert run("generate", *flags, "--draft-tokens", number).stdout == plain
    for number in ("0", "4"):
        drafts = json.loads(run("generate", *flags, "--draft-tokens", number, "--json").stdout)["drafts"]
        assert drafts["accepted"] <= drafts["verified"]
        assert bool(drafts["verified"]) is (number != "0")
    told, idle = "leave one of them out", ("--draft", "anything", "--draft-tokens", "0")
    assert told in run("generate", *flags, *idle, status=2).stderr
    assert told in run("chat", *idle, stdin="Hi", status=2).stderr


def test_a_number_of_guesses_that_is_none_is_refused(run):
    refused = run("generate", "One two", "--draft-tokens", "many", status=2)
    assert "draft_tokens: must be auto or a whole number from 0 to 64, got 'many'" in refused.stderr


def test_tokens(run):
    done = json.loads(run("tokens", "Llamas <|im_end|>", "--json").stdout)
    assert "".join(done["pieces"]) == "Llamas <|im_end|>"
    assert 2 not in done["ids"]
    assert json.loads(run("tokens", "<|im_end|>", "--special", "--json").stdout)["ids"] == [2]


@pytest.mark.slow
def test_info(run):
    done = json.loads(run("info", "--json").stdout)
    assert done["family"] == "SmolLM2 135M"
    assert done["parameters"] == 134_515_008
    assert done["quants"] == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert done["stop_ids"] == [2]
    assert [len(digest) for digest in done["hashes"].values()] == [64]
    assert done["hashes"].keys() == {file["name"] for file in done["files"]}
    assert "SmolLM2 135M" in run("info").stdout


@pytest.mark.slow
def test_bench(run):
    done = json.loads(run("bench", "--prompt", "16", "--tokens", "2", "--repeats", "1", "--json").stdout)
    assert done["prefill_tokens_per_second"] > 0
    assert done["decode_tokens_per_second"] > 0
    assert done["decode_share_of_bandwidth"] > 0  # how much, only a quiet machine tells
    assert done["bytes_per_token"] > 90_000_000
    assert done["busy"]["own"] > 0


def test_models_and_doctor(run):
    assert "Llama 2" in run("models").stdout
    assert any(row["local"] for row in json.loads(run("models", "--json").stdout)["models"])
    doctor = json.loads(run("doctor", "--json").stdout)
    assert doctor["threads"] >= 1
    assert doctor["busy"]["processors"] >= doctor["threads"]
    assert doctor["load"]


@pytest.mark.slow
def test_convert_there_and_back_gives_the_same_answer(run, tmp_path):
    run("convert", "smollm2:135m-instruct", str(tmp_path / "hf"), "--to", "hf", "--quant", "F32")
    run("convert", str(tmp_path / "hf"), str(tmp_path / "q8.gguf"), "--to", "gguf", "--quant", "Q8_0")
    exact = ("--temperature", "0", "--activation-bits", "15")  # the two likeliest first words lie 0.13 nats apart
    for path in (tmp_path / "hf", tmp_path / "q8.gguf"):
        assert "Paris" in run("chat", str(path), *exact, stdin="What is the capital of France?").stdout
        assert (tmp_path / "hf" / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chatt",), "did you mean 'chat'"),
        (("generate", "x", "--temprature", "1"), "--temperature"),
        (("generate", "x", "--temperature", "-1"), "temperature"),
        (("generate", "x", "--top-p", "0"), "top_p"),
        (("generate", "no-such-model", "x"), "no-such-model"),
        (("generate", "smollm2:135m-instrukt", "x"), "smollm2:135m-instruct"),
        (("generate", "llama2:7b-chat", "x"), "camelid pull llama2:7b-chat"),
        (("generate", "x", "--backend", "gpu"), "choose auto"),
        (("generate", "x", "--order", "fancy"), "order"),
        (("chat", "--chat-format", "fancy"), "chatml"),
        (("infill", "smollm2:135m-instruct", "-"), "<FILL>"),
        (("next", "a", "b", "c"), "quotes"),
        (("bench", "--prompt", "0"), "prompt"),
        (("info", "/dev/null"), "/dev/null"),
        (("convert", "smollm2:135m-instruct", "out", "--to", "onnx"), "onnx"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, arguments, words):
    done = run(*arguments, stdin="Hello?", status=2)
    assert done.stdout == ""
    assert words in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("camelid: ")
