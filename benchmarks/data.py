"""Preparing text with camelid and with datatrove, the same filters and MinHash, in turns; then the whole with camelid.

python benchmarks/data.py [--megabytes 1000] [--part 50] [--workers 2] [--quick]

The text is made from this machine's own documentation: paragraphs drawn and varied, with duplicates put in. It lies
in a temporary folder and is removed. datatrove splits words with spaCy; where that is not installed, or without
--spacy, it gets a plain split at white space instead, which is much faster. It needs orjson: pip install orjson
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "data.jsonl"
RECIPE = """
name = "data"
[data]
validation = 0.01
rules = {gopher_quality = {}, gopher_repetition = {}, fineweb = {}}
dedup = {url = false, exact = false, minhash = true}
[[data.sources]]
name = "made"
kind = "jsonl"
path = "*.jsonl"
unit_bytes = 2500000
[tokenizer]
train = "llama3"
vocab_size = 16384
"""
FILE_BYTES = 25 * 10**6  # of a file at most; there are several for each worker


def paragraphs() -> list[str]:
    """Paragraphs of prose from the machine's documentation and Python's own, each once."""
    from camelid.data.sources import corpus

    options = corpus.Source(name="python", kind="corpus")
    parts = corpus.file_parts(options, Path())
    texts = [document.text for part in parts for document in corpus.read(part, options)]  # type: ignore[union-attr]
    for path in sorted(Path("/usr/share/doc").rglob("*"))[:6000]:
        if path.is_file() and path.stat().st_size < 2**20:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            texts.append(data.decode("utf-8", "ignore"))
    unique = {" ".join(part.split()) for text in texts for part in text.split("\n\n")}
    prose = (part for part in unique if 80 <= len(part) <= 2000 and part.count(" ") > len(part) / 9)
    return sorted(part for part in prose if sum(map(str.isalpha, part)) > 0.7 * len(part))


def documents(seed: int) -> Iterator[str]:
    """Endless documents: some paragraphs, every twentieth word another one; 5 % are copies and 5 % nearly."""
    draw, pool = random.Random(seed), paragraphs()
    words = [word for part in pool[::7] for word in part.split() if word.isalpha()]
    last: list[str] = ["A first document."]
    while True:
        chance = draw.random()
        if chance < 0.05:
            yield draw.choice(last)
            continue
        if chance < 0.1:
            text = draw.choice(last).split(" ")
            text[draw.randrange(len(text))] = draw.choice(words)
            yield " ".join(text)
            continue
        parts = []
        for part in draw.choices(pool, k=1 + int(draw.expovariate(0.12))):
            changed = part.split(" ")
            for place in range(draw.randrange(20), len(changed), 20):
                changed[place] = draw.choice(words)
            parts.append(" ".join(changed))
        last.append("\n".join(parts))
        del last[:-2000]
        yield last[-1]


def make(folder: Path, megabytes: float, seed: int = 0) -> tuple[int, int]:
    """Files of JSON lines; returns documents and bytes of text."""
    count = size = number = 0
    made, file_bytes = documents(seed), min(FILE_BYTES, megabytes * 1e6 / 4)
    while size < megabytes * 1e6:
        with (folder / f"{number:04d}.jsonl").open("w", encoding="utf-8") as file:
            while file.tell() < file_bytes and size < megabytes * 1e6:
                text = next(made)
                file.write(json.dumps({"id": f"{count}", "text": text}, ensure_ascii=False) + "\n")
                count, size = count + 1, size + len(text.encode())
        number += 1
    return count, size


def ours(folder: Path, out: Path, workers: int) -> int:
    """Filter and deduplicate with camelid; returns how many documents stay."""
    from camelid.data.prepare import Preparation
    from camelid.data.workers import Workers
    from camelid.recipe import read_recipe

    (folder / "data.toml").write_text(RECIPE, encoding="utf-8")
    work = Preparation(read_recipe(folder / "data.toml"), out, workers, None)
    out.mkdir()
    work.folder.make()
    with Workers(workers) as pool:
        work.read(pool)
        work.compare()
        work.keep(pool)
    return sum(1 for path in work.folder.documents.iterdir() for _ in gzip.open(path))


class Split:
    """Words between white space, in place of spaCy's."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return text.split()


class Plain:
    """A first step that takes spaCy out, in whichever process the pipeline runs."""

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Hand on what is given."""
        from datatrove.pipeline import filters  # noqa: F401

        for name, module in list(sys.modules.items()):
            if name.startswith("datatrove.pipeline"):
                if hasattr(module, "split_into_words"):
                    module.split_into_words = lambda text, language=None: text.split()
                if hasattr(module, "load_word_tokenizer"):
                    module.load_word_tokenizer = lambda language: Split()
        return data


def theirs(folder: Path, out: Path, workers: int, spacy: bool) -> int:
    """The same with datatrove; returns how many documents stay."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import minhash
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    plain = [] if spacy else [Plain()]
    for step in plain:
        step()
    names = ("kept", "signatures", "buckets", "removed", "out")
    kept, signatures, buckets, removed, last = (str(out / name) for name in names)
    config = minhash.MinhashConfig(hash_config=minhash.HashConfig(hash_fc="sha1"))
    filters = [GopherQualityFilter(), GopherRepetitionFilter(), FineWebQualityFilter()]
    files = len(list(folder.glob("*.jsonl")))
    read = JsonlReader(str(folder), glob_pattern="*.jsonl")
    steps: list[tuple[list[Any], int]] = [
        ([*plain, read, *filters, JsonlWriter(kept)], files),
        ([*plain, JsonlReader(kept), minhash.MinhashDedupSignature(signatures, config)], files),
        ([minhash.MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        ([minhash.MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([JsonlReader(kept), minhash.MinhashDedupFilter(removed), JsonlWriter(last)], files),
    ]
    for number, (pipeline, tasks) in enumerate(steps):
        LocalPipelineExecutor(pipeline, tasks, workers, str(out / f"logs{number}")).run()
    return sum(1 for path in Path(last).iterdir() for _ in gzip.open(path))


def measured(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak of resident memory of the process and all below it in MB, and the last line that it wrote."""
    peak, ended = [0.0], threading.Event()
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)

        def watch() -> None:
            while not ended.wait(0.1):
                peak[0] = max(peak[0], resident(process.pid))

        thread = threading.Thread(target=watch)
        thread.start()
        out, _ = process.communicate()
        seconds = time.perf_counter() - started
        ended.set()
        thread.join()
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()[-3000:]}")
    return seconds, peak[0], out.strip().splitlines()[-1]


def resident(session: int) -> float:
    """MB of all processes of a session; pages that several share count for each."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, IndexError, ValueError):
                continue
    return total / 1e6


def compare(folder: Path, choices: argparse.Namespace) -> None:
    """A B A B on a part of the text."""
    part = folder / "part"
    part.mkdir()
    count, size = make(part, choices.part)
    print(f"part: {count:,} documents, {size / 1e6:.1f} MB, {choices.workers} workers")
    runs: dict[str, list[dict[str, Any]]] = {"camelid": [], "datatrove": []}
    for turn in range(choices.repeats):
        for name, done in runs.items():
            out = folder / f"{name}{turn}"
            command = [sys.executable, __file__, "--run", name, str(part), str(out), "--workers", str(choices.workers)]
            seconds, memory, last = measured([*command, *(["--spacy"] if choices.spacy else [])])
            shutil.rmtree(out, ignore_errors=True)
            done.append({"seconds": seconds, "memory": memory, "kept": int(last)})
            shown = f"{size / seconds / 1e6:6.2f} MB/s, {count / seconds:7,.0f} documents/s, peak {memory:,.0f} MB"
            print(f"{name:10} {shown}, {done[-1]['kept']:,} kept")
    middle = {name: statistics.median(run["seconds"] for run in done) for name, done in runs.items()}
    ratio = middle["datatrove"] / middle["camelid"]
    print(f"camelid is {ratio:.1f} times as fast")
    words = "spaCy" if choices.spacy else "str.split"
    write({"test": "part", "documents": count, "bytes": size, "words": words, "runs": runs, "ratio": ratio}, choices)


def whole(folder: Path, choices: argparse.Namespace) -> None:
    """All of the text to tokens."""
    text = folder / "whole"
    text.mkdir()
    count, size = make(text, choices.megabytes, seed=1)
    (text / "data.toml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "camelid", "prepare", str(text / "data.toml"), "--out", str(folder / "runs")]
    seconds, memory, last = measured([*command, "--workers", str(choices.workers), "--json"])
    result = json.loads(last)
    print(f"whole: {count:,} documents, {size / 1e6:.1f} MB to {result['tokens']:,} tokens of {result['documents']:,}")
    print(f"camelid    {size / seconds / 1e6:6.2f} MB/s, {count / seconds:7,.0f} documents/s, peak {memory:,.0f} MB")
    for stage in result["stages"]:
        print(f"  {stage['name']:20} {stage['documents_in']:9,} → {stage['documents_out']:9,}")
    row = {"test": "whole", "documents": count, "bytes": size, "seconds": seconds, "memory": memory}
    write({**row, "tokens": result["tokens"], "kept": result["documents"]}, choices)


def write(row: dict[str, Any], choices: argparse.Namespace) -> None:
    """Append a line of results, unless it was a quick look."""
    if choices.quick:
        return
    about = {"date": time.strftime("%Y-%m-%d"), "workers": choices.workers, "cpus": os.cpu_count()}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**about, **row}) + "\n")


def main() -> None:
    """Print and write down what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of the whole")
    parser.add_argument("--part", type=float, default=50.0, help="megabytes that both prepare in turns")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--spacy", action="store_true", help="let datatrove split words with spaCy")
    parser.add_argument("--quick", action="store_true", help="20 MB, a part of 5 once; nothing is written down")
    parser.add_argument("--run", nargs=3, metavar=("NAME", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.run:
        name, folder, out = choices.run
        run: Callable[..., int] = ours if name == "camelid" else theirs
        more = () if name == "camelid" else (choices.spacy,)
        print(run(Path(folder), Path(out), choices.workers, *more))
        return
    if choices.quick:
        choices.megabytes, choices.part, choices.repeats = 20.0, 5.0, 1
    with tempfile.TemporaryDirectory(prefix="camelid-") as name:
        compare(Path(name), choices)
        whole(Path(name), choices)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
