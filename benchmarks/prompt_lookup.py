"""Prompt lookup where a text is written again with one word changed: with and without drafts, in turns.

Both texts must be equal.

python benchmarks/prompt_lookup.py [MODEL] [--draft-tokens 8] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import camelid

TEXT = (
    "A llama is a woolly animal of the Andes. The llama carries loads over high passes, eats grass and leaves, and "
    "lives in herds that follow the rains from valley to valley. People have kept it for four thousand years: its "
    "wool is spun into ropes and blankets, its dung is burnt as fuel, and its patience is praised in many songs. "
    "When a llama is tired or carries too much, it lies down, hums, and waits until the load is made lighter."
)


def main() -> None:
    """Print tokens a second of both, the ratio, and how many drafted tokens were accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2:135m-instruct")
    parser.add_argument("--draft-tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    choices = parser.parse_args()
    llama = camelid.load(choices.model)
    question = f"Write this text again and change only the word 'songs' to 'poems': {TEXT}"
    speeds: dict[int, list[float]] = {0: [], choices.draft_tokens: []}
    texts = set()
    before = (llama.engine.n_drafted, llama.engine.n_accepted)
    for turn in range(choices.repeats + 1):
        for n, rates in speeds.items():
            started = time.perf_counter()
            answer = llama.chat(question, temperature=0, max_tokens=200, draft_tokens=n)
            writing = time.perf_counter() - started - answer.seconds_to_first
            texts.add(answer.text)
            if turn:
                rates.append((answer.usage.completion_tokens - 1) / writing)
    if len(texts) > 1:
        raise SystemExit("drafts changed the text")
    plain, drafted = (statistics.median(rates) for rates in speeds.values())
    row = {
        "tokens": answer.usage.completion_tokens,
        "plain": round(plain, 1),
        "drafted": round(drafted, 1),
        "ratio": round(drafted / plain, 2),
        "ranges": {n: [round(min(rates), 1), round(max(rates), 1)] for n, rates in speeds.items()},
        "accepted": (llama.engine.n_accepted - before[1]) / max(1, llama.engine.n_drafted - before[0]),
        "text": texts.pop(),
    }
    print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
