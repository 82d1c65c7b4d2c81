"""Many log-likelihoods at once, as evaluations ask for them, and in a loop of single ones; both must be equal.

Texts are made of words of a file with a fixed seed. labels: four letters after each of 250 contexts of 512 tokens that
begin alike; words: 1,000 ends of one to three words after one context; endings: HellaSwag's shape, four ends of 20
tokens after contexts of 60 to 100; shots: MMLU's shape, four letters after questions that share five shots.

python benchmarks/loglikelihoods.py [MODEL] [--case labels] [--single 100] [--threads N] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import camelid
from camelid.chat.scoring import PairEncoder
from camelid.engine import EngineOptions
from camelid.engine.sequence import common_prefix

Pairs = list[tuple[str, str]]


class Counting:
    """A backend that counts what it computes, and the time it takes."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.clear()

    def clear(self) -> None:
        self.n_passes = self.n_ids = self.n_rows = 0
        self.seconds = self.cpu_seconds = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def forward(self, batch):
        started, cpu_started = time.perf_counter(), time.process_time()
        rows = self.inner.forward(batch)
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu_started
        self.n_passes += 1
        self.n_ids += sum(len(span.ids) for span in batch.spans)
        self.n_rows += sum(len(own) for own in rows)
        return rows


def labels(text: str, words: list[str], rng: random.Random) -> Pairs:
    return [(text[: 2600 + n].rstrip(), " " + letter) for n in range(250) for letter in "ABCD"]


def one_context(text: str, words: list[str], rng: random.Random) -> Pairs:
    context = text[:2600].rstrip()
    return [(context, " " + " ".join(rng.choices(words, k=rng.randint(1, 3)))) for _ in range(1000)]


def endings(text: str, words: list[str], rng: random.Random) -> Pairs:
    contexts = [" ".join(rng.choices(words, k=rng.randint(30, 50))) for _ in range(100)]
    return [(context, " " + " ".join(rng.choices(words, k=10))) for context in contexts for _ in range(4)]


def shots(text: str, words: list[str], rng: random.Random) -> Pairs:
    def question() -> str:
        options = "".join(f"\n{letter}. {' '.join(rng.choices(words, k=4))}" for letter in "ABCD")
        return f"{' '.join(rng.choices(words, k=15))}?{options}\nAnswer:"

    pairs = []
    for subject in range(4):
        head = f"The following are multiple choice questions (with answers) about {words[subject]}.\n\n"
        head += "".join(f"{question()} {rng.choice('ABCD')}\n\n" for _ in range(5))
        pairs += [(head + each, " " + letter) for each in [question() for _ in range(40)] for letter in "ABCD"]
    return pairs


CASES = {"labels": labels, "words": one_context, "endings": endings, "shots": shots}


def needed(llama: camelid.Llama, pairs: Pairs) -> tuple[int, int]:
    """Ids and rows of a perfect tree."""
    encoder = PairEncoder(llama.tokenizer, llama.prompt_ids)
    texts = sorted((encoder.encode(*pair) for pair in pairs), key=lambda each: each.ids[:-1])
    n_ids, last = 0, ()
    for text in texts:
        n_ids += len(text.ids) - 1 - common_prefix(last, text.ids[:-1])
        last = text.ids[:-1]
    rows = {text.ids[: place + 1] for text in texts for place in range(text.start - 1, len(text.ids) - 1)}
    return n_ids, len(rows)


def measure(llama: camelid.Llama, backend: Counting, pairs: Pairs, n_single: int) -> dict[str, object]:
    """Both ways on a fresh cache; of single ones the first `n_single`."""
    llama.engine.clear()
    backend.clear()
    started, cpu_started = time.perf_counter(), time.process_time()
    together = llama.loglikelihoods(pairs)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    n_ids, n_rows = needed(llama, pairs)
    row: dict[str, object] = {
        "pairs": len(pairs),
        "pairs_s": round(len(pairs) / seconds, 1),
        "cpu_s": round(cpu_seconds, 2),
        "passes": backend.n_passes,
        "ids": backend.n_ids,
        "ids_over_needed": round(backend.n_ids / n_ids, 3),
        "rows_over_needed": round(backend.n_rows / n_rows, 3),
        "outside_forward": round(1 - backend.seconds / seconds, 3),
        "outside_forward_cpu": round(1 - backend.cpu_seconds / cpu_seconds, 3),
    }
    llama.engine.clear()
    started = time.perf_counter()
    alone = [llama.loglikelihood(*pair) for pair in pairs[:n_single]]
    single_s = n_single / (time.perf_counter() - started)
    row |= {"single_s": round(single_s, 1), "ratio": round(len(pairs) / seconds / single_s, 2)}
    if alone != together[:n_single]:
        raise SystemExit("a score depends on its neighbours")
    return row


def main() -> None:
    """Print a line of JSON for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2:135m-instruct")
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--single", type=int, default=100, help="pairs of the loop")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--text", type=Path, default=Path(__file__).parent.parent / "LICENSE")
    parser.add_argument("--out", type=Path)
    choices = parser.parse_args()
    llama = camelid.load(choices.model, options=EngineOptions(threads=choices.threads))
    llama.engine.backend = backend = Counting(llama.engine.backend)
    text = choices.text.read_text(encoding="utf-8")
    words = sorted(set(text.split()))
    llama.loglikelihood("Once", " more")
    for case in choices.case or CASES:
        row = {"case": case, **measure(llama, backend, CASES[case](text, words, random.Random(1)), choices.single)}
        print(json.dumps(row), flush=True)
        if choices.out:
            with choices.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
