"""What choosing tokens costs: decode speed of several ways to sample, alone and in a crowd, in turns in one process.

Tokens a second (median, least, most), the ratio to greedy, and microseconds of processor time that a choice takes, on
rows of the model itself, in C++ and by `sampling.py`.

python benchmarks/sampling.py [MODEL] [--tokens 128] [--repeats 5] [--crowd 32] [--only-choices]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

import camelid
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.request import Request, SamplingParams
from camelid.engine.sampling.choose import Chooser, Writer, slow_choice
from camelid.engine.sequence import Sequence

PROMPT = "Tell me a long story about a llama that carries salt over the Andes."
WAYS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0},
    "default": {},
    "long chain": {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
    "20 alternatives": {"logprobs": 20},
}


def main() -> None:
    """Print a line for each size of crowd and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2:135m-instruct")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--crowd", type=int, default=32)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only-choices", action="store_true", help="not the speeds, which need a quiet machine")
    choices = parser.parse_args()
    llama = camelid.load(
        choices.model, options=EngineOptions(threads=choices.threads, max_running=max(choices.crowd, 1))
    )
    ids = tuple(llama.prompt_ids(PROMPT))
    ways = {
        name: SamplingParams(**way, seed=1, draft_tokens=0, ignore_stop=True, max_tokens=choices.tokens)
        for name, way in WAYS.items()
    }
    rows = written_rows(llama.engine, ids, choices.tokens)
    for name, params in ways.items():
        print(json.dumps({"way": name, **microseconds(params, ids, rows)}, ensure_ascii=False), flush=True)
    for crowd in [] if choices.only_choices else [1, choices.crowd]:
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(choices.repeats + 1):
            for name, params in ways.items():
                speed = decode_speed(llama.engine, ids, params, crowd)
                if turn:
                    speeds[name].append(speed)
        greedy = statistics.median(speeds["greedy"])
        for name, all_speeds in speeds.items():
            middle = statistics.median(all_speeds)
            row = {"at once": crowd, "way": name, "tokens/s": round(middle, 1)}
            row |= {"least": round(min(all_speeds), 1), "most": round(max(all_speeds), 1)}
            print(json.dumps({**row, "of greedy": round(middle / greedy, 3)}), flush=True)


def decode_speed(engine: Engine, ids: tuple[int, ...], params: SamplingParams, crowd: int) -> float:
    """Tokens a second of so many answers at once, from the moment that all have their first token."""
    for place in range(crowd):
        engine.add(Request(ids=ids, params=params.with_(seed=place)))
    begun: set[int] = set()
    while len(begun) < crowd:
        begun |= {outcome.request for outcome in engine.step()}
    n_tokens, started = 0, time.perf_counter()
    while engine.is_busy:
        n_tokens += len(engine.step())
    return n_tokens / (time.perf_counter() - started)


def written_rows(engine: Engine, ids: tuple[int, ...], n: int) -> list[np.ndarray]:
    """Logits of the places of an answer."""
    params = SamplingParams(temperature=0, draft_tokens=0, ignore_stop=True, max_tokens=n)
    text = (*ids, *(token.id for token in engine.stream(Request(ids=ids, params=params))))
    result = engine.result(Request(ids=text, wants="logits", rows=range(len(ids) - 1, len(text) - 1)))
    return [np.array(row) for row in result.rows]  # type: ignore[union-attr]


def microseconds(params: SamplingParams, ids: tuple[int, ...], rows: list[np.ndarray]) -> dict[str, float]:
    """Processor time of a choice, the median over the rows; each is read once before, as the matrix leaves it."""
    chooser, request = Chooser(), Request(ids=ids, params=params)
    writer = Writer(Sequence(0, request, 0, list(ids)), 1, 10**6, None)
    times: dict[str, list[float]] = {"µs in C++": [], "µs by sampling.py": []}
    n_asked = 0
    for row in rows:
        row.sum()
        started = time.process_time_ns()
        (choice,) = chooser.choose([writer], [row])
        between = time.process_time_ns()
        expected = slow_choice(writer, row)
        times["µs in C++"].append((between - started) / 1000)
        times["µs by sampling.py"].append((time.process_time_ns() - between) / 1000)
        n_asked += choice is None
        if choice is not None and choice.id != expected.id:
            raise SystemExit("C++ chose another id")
        writer.sequence.ids.append(expected.id)
    return {**{name: round(statistics.median(each), 1) for name, each in times.items()}, "left to sampling.py": n_asked}


if __name__ == "__main__":
    main()
