"""Many answers to many prompts: camelid's engine beside transformers' `generate` in its best batch, and the best of K.

    python benchmarks/rlhf/rejection.py [--prompts FILE.jsonl[.gz]] [--reward REWARD-MODEL] [--quick]

500 prompts, 8 answers each, of at most 128 tokens, at temperature 1, from the default model: camelid writes them all,
as the stage `rejection` does, into lines that outlive a kill. transformers gets the same model in an HF folder, the
same prompts and the same sampling, 8 answers a prompt by `num_return_sequences`, padded on the left, in bf16 and in
float32, in batches of 8, 32, 64, 128 and 256 answers; each is timed on as many prompts as fill its batch, the longest
and the shortest of them among these, and the best one then runs 64 prompts. Both are counted in answers a second; an
answer ends where the model ends it. Turns: camelid's first half, transformers, camelid's second half.

With a reward model the curve of the expected highest and median reward against K is told, too.

On two cores about 25 minutes: 6 for camelid, 18 for transformers; with --quick (50 prompts) about four. Appends a line
to benchmarks/results/rejection.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camelid.chat.load import load
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.hub.store import resolve
from camelid.machine import threads
from camelid.tokens.templates.message import Message
from camelid.train.makers.asking import Asked, EngineWriter
from camelid.train.makers.best_of import curve
from camelid.train.makers.judging import Answered, ModelJudge
from camelid.train.makers.lines import Lines
from camelid.train.makers.making import Question, answer_all
from camelid.weights import save_weights

RESULTS = Path(__file__).parent.parent / "results" / "rejection.jsonl"
BATCHES = (8, 32, 64, 128, 256)  # answers that transformers writes together
HH = "hh-rlhf/harmless-base-test.jsonl.gz"


def main() -> None:
    args = _arguments()
    prompts = read_prompts(args.prompts, 50 if args.quick else args.n)
    questions = [Question(asked := Asked((Message("user", text),), args.k, 1.0), asked.messages) for text in prompts]
    writer = EngineWriter(resolve(args.model), seed=1, max_tokens=args.max_tokens, context=args.context)
    with tempfile.TemporaryDirectory() as folder, Lines(Path(folder) / "lines") as lines:
        half = len(questions) // 2
        ours = [_timed(questions[:half], lines, writer)]
        theirs = None
        if not args.only_camelid:
            theirs = transformers_best(args.model, Path(folder) / "hf", prompts, args)
        ours.append(_timed(questions[half:], lines, writer))
        found = [lines[question.key]["answers"] for question in questions]
        result = _result(args, ours, found, theirs)
        if args.reward is not None:
            result["curve"] = _curve(args.reward, questions, found)
    print(json.dumps(result, indent=1))
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")


def read_prompts(path: Path, n: int) -> list[str]:
    """The first questions of the first n records that differ: of dialogues, prompts, questions or instructions."""
    found: dict[str, None] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in file:
            row = json.loads(line)
            text = next(row[name] for name in ("prompt", "question", "instruction", "chosen") if name in row)
            if text.startswith("\n\nHuman:"):
                text = text.removeprefix("\n\nHuman:").partition("\n\nAssistant:")[0]
            found[text.strip()] = None
            if len(found) == n:
                break
    return list(found)


def _timed(questions: Sequence[Question], lines: Lines, writer: EngineWriter) -> float:
    started = time.perf_counter()
    answer_all(questions, lines, writer, None)
    return time.perf_counter() - started


def transformers_best(model: str, folder: Path, prompts: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """Answers and tokens a second of the best of all batches and types."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_weights(resolve(model), folder, format="hf")
    torch.set_num_threads(threads()[0])
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    stops = _stop_ids(model)
    rates: dict[str, float] = {}
    best: tuple[float, Any, int, str] | None = None
    for name in ("bfloat16", "float32"):
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, name)).eval()

        def run(texts: Sequence[str], batch: int, hf: Any = hf) -> tuple[float, int]:
            started, tokens = time.perf_counter(), 0
            for start in range(0, len(texts), max(1, batch // args.k)):
                own = texts[start : start + max(1, batch // args.k)]
                chats = [[{"role": "user", "content": text}] for text in own]
                ids = tokenizer.apply_chat_template(
                    chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
                )
                with torch.inference_mode():
                    out = hf.generate(
                        **ids, do_sample=True, temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=args.max_tokens,
                        num_return_sequences=args.k, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id,
                    )  # fmt: skip
                written = out[:, ids["input_ids"].shape[1] :]
                tokens += int((written != tokenizer.pad_token_id).sum())
            return time.perf_counter() - started, tokens

        for batch in BATCHES[:2] if args.quick else BATCHES:
            texts = _spread(prompts, max(1, batch // args.k))
            seconds, _ = run(texts, batch)
            rate = len(texts) * args.k / seconds
            rates[f"{name}, {batch}"] = round(rate, 2)
            print(f"transformers {name}, batches of {batch}: {rate:.2f} answers/s", flush=True)
            if best is None or rate > best[0]:
                best = rate, run, batch, name
    assert best is not None
    texts = _spread(prompts, 16 if args.quick else 64)
    seconds, tokens = best[1](texts, best[2])
    answers = len(texts) * args.k
    return {
        "type": best[3],
        "batch": best[2],
        "answers_per_second": answers / seconds,
        "tokens_per_second": tokens / seconds,
        "tokens_per_answer": tokens / answers,
        "tried": rates,
    }


def _stop_ids(model: str) -> list[int]:
    """What ends an answer in camelid, so that both end alike."""
    opened = load(model)
    return sorted({*opened.stop_ids, *opened.chat_format.stop_ids(opened.tokenizer)})


def _spread(prompts: Sequence[str], n: int) -> list[str]:
    """n prompts evenly taken from the shortest to the longest."""
    ordered = sorted(prompts, key=len)
    return [ordered[(len(ordered) - 1) * place // max(1, n - 1)] for place in range(n)]


def _curve(path: str, questions: Sequence[Question], found: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    from camelid.engine.reward import RewardModel

    judge = ModelJudge(RewardModel.open(resolve(path)))
    rewards = []
    for question, answers in zip(questions, found, strict=True):
        scores = judge.scores([Answered(question.messages, answer["text"], {}) for answer in answers])
        rewards.append([score.reward for score in scores])
    points = [{"k": point.k, "max": round(point.most, 4), "median": round(point.median, 4)} for point in curve(rewards)]
    for point in points:
        print(f"K = {point['k']}: highest {point['max']:.4f}, median {point['median']:.4f}")
    return points


def _result(
    args: argparse.Namespace, seconds: Sequence[float], found: Sequence[Sequence[dict[str, Any]]], theirs: Any
) -> dict[str, Any]:
    answers = [answer for own in found for answer in own]
    tokens = sum(answer["tokens"] for answer in answers)
    ours = {
        "seconds": [round(each, 1) for each in seconds],
        "answers_per_second": len(answers) / sum(seconds),
        "tokens_per_second": tokens / sum(seconds),
        "tokens_per_answer": tokens / len(answers),
        "unfinished": sum(not answer["finished"] for answer in answers) / len(answers),
    }
    print(f"camelid: {ours['answers_per_second']:.2f} answers/s, {ours['tokens_per_second']:.0f} tokens/s")
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(),
        "threads": threads()[0],
        "model": args.model,
        "prompts": len(found),
        "answers": args.k,
        "max_tokens": args.max_tokens,
        "camelid": ours,
    }
    if theirs is None:
        return result
    ratio = ours["answers_per_second"] / theirs["answers_per_second"]
    by_token = ours["tokens_per_second"] / theirs["tokens_per_second"]
    print(f"transformers, its best: {theirs['answers_per_second']:.2f} answers/s; camelid {ratio:.1f} times")
    return {**result, "transformers": theirs, "ratio": ratio, "ratio_by_token": by_token}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--prompts", type=Path, default=Path(os.environ.get("CAMELID_TEST_DATA", ".")) / HH)
    parser.add_argument("--reward", help="a reward model: a folder")
    parser.add_argument("--n", type=int, default=500, help="prompts")
    parser.add_argument("--k", type=int, default=8, help="answers to each")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only-camelid", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
