"""Scorers and prompts of generated answers against the field's own programs: how many are equal.

Needs, beside camelid, in an environment of their own: lm-eval==0.4.13 antlr4-python3-runtime==4.11 math-verify
if-verifiable langdetect immutabledict nltk, and NLTK's `punkt_tab` below NLTK_DATA.

python benchmarks/evals/answers.py DATA prompts  lm-eval's prompts of GSM8K and MATH
python benchmarks/evals/answers.py DATA math     Minerva's normal form and lm-eval's equality, golds and made-up texts
python benchmarks/evals/answers.py DATA ifeval   if-verifiable's verdicts on real and made-up texts (minutes)
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import logging
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLD_FORMS = ("{}", "x={}", "{}+0", r"\text{{ }}{}")
PIECES = (
    r"\frac|12|3|{|}|$|\text{|m}|s}|cm|ft|\left|(|a |an |\ |=|x|\sqrt|[3]|{,}|,\!|,|000|^\circ|\boxed{|.|square|hours"
)
LINES = "Section 1|***|******|* item|- item|<<title>>|[name]|P.S. x|P. P. S y|My answer is yes.|{}|```json|```|*hi*"
LINES += (
    "|DON'T|CANNOT|word, comma|**bold**|the End.|Is it? Yes!|Dr. Smith went.|e.g. this.|1. First|éclair|это|U.S. The"
)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of gzipped JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def compare_prompts(data: Path) -> None:
    """All prompts of GSM8K and MATH."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    from camelid.evals.plan import make_plan
    from camelid.evals.sources import open_source
    from camelid.evals.tasks import find_task

    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = Path(lm_eval.__file__).parent / "tasks"
    for name, file, splits, chat in (
        ("gsm8k", "gsm8k/gsm8k.yaml", ("train", "test"), False),
        ("gsm8k:cot", "gsm8k/gsm8k-cot.yaml", ("train", "test"), False),
        ("gsm8k:chat", "gsm8k/gsm8k-cot-llama.yaml", ("train", "test"), True),
        ("math", "minerva_math/minerva_math_algebra.yaml", ("test",), False),
    ):
        items = data / name.partition(":")[0]
        with tempfile.TemporaryDirectory() as unpacked:
            files = {}
            for split in splits:
                files[split] = str(Path(unpacked) / f"{split}.jsonl")
                Path(files[split]).write_bytes(gzip.decompress((items / f"{split}.jsonl.gz").read_bytes()))
            config = {key: value for key, value in load_yaml(folder / file).items() if key != "include"}
            config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
            theirs = ConfigurableTask(config=config)
            theirs.set_fewshot_seed(1234)
            plan = make_plan(find_task(name), open_source(items, "test"))
            equal = 0
            for number, doc in enumerate(theirs.test_docs()):
                prompt: Any = plan.request(number).prompt
                if chat:
                    prompt = [{"role": turn.role, "content": turn.content} for turn in prompt]
                template = (lambda turns, add_generation_prompt=True: turns) if chat else None
                shown = theirs.fewshot_context(doc, plan.n_shots, None, chat, chat, template)
                equal += prompt == shown
        print(f"{name}: {equal} of {len(plan.items)} prompts are lm-eval's")


def compare_math(data: Path) -> None:
    """Normal forms of golds and made-up texts; equality of golds in other spellings."""
    from lm_eval.tasks.minerva_math import utils

    from camelid.evals.scorers.math import compat, fixed, gold_answer
    from camelid.evals.scorers.math_minerva import normalised
    from camelid.evals.scorers.math_process import Comparer

    draw = random.Random(0)
    solutions = [row["solution"] for row in rows(data / "math" / "test.jsonl.gz")]
    golds = [gold_answer(solution) for solution in solutions]
    made_up = ["".join(draw.choices(PIECES.split("|"), k=draw.randint(1, 10))) for _ in range(30_000)]
    same = sum(normalised(text) == utils.normalize_final_answer(text) for text in [*golds, *made_up])
    print(f"normal forms: {same} of {len(golds) + len(made_up)} are lm-eval's")
    with Comparer() as comparer:
        right = sum(fixed(text, gold, comparer).right is True for text, gold in zip(solutions, golds, strict=True))
        print(f"fixed: {right} of {len(golds)} solutions are right")
        same = 0
        for gold in draw.sample(golds, 300):
            text = f"Final Answer: The final answer is ${draw.choice(GOLD_FORMS).format(gold)}$. I hope it is correct."
            shown = utils.normalize_final_answer(utils.get_unnormalized_answer(text))
            theirs = utils.is_equiv(shown, utils.normalize_final_answer(gold))
            same += bool(compat(text, gold, comparer).right) == bool(theirs)
        print(f"compat: {same} of 300 verdicts are lm-eval's")


def compare_ifeval(data: Path) -> None:
    """Verdicts of all 25 checkers, strict and loose."""
    import langdetect
    from if_verifiable.ifeval import instructions_registry, instructions_util
    from nltk.tokenize.punkt import PunktTokenizer

    from camelid.evals.scorers import ifeval
    from tests.evals.scorers.test_ifeval import EXAMPLES

    langdetect.DetectorFactory.seed = 0
    logging.disable(logging.CRITICAL)
    punkt = PunktTokenizer("english")
    instructions_util._get_sentence_tokenizer = lambda: punkt
    draw = random.Random(1)
    texts = ["\n".join(draw.choices(LINES.split("|"), k=draw.randint(0, 12))) for _ in range(3000)]
    for name in ("orig", "new"):
        with gzip.open(
            data / "xstest" / f"completions_llama2{name}.csv.gz", "rt", encoding="utf-8", newline=""
        ) as file:
            texts += [row["completion"] for row in csv.DictReader(file)]
    languages = [("change_case:english_capital", {}), ("language:response_language", {"language": "en"})]
    cases = [row[:2] for row in EXAMPLES if row[1].get("letter") != "#" and row[1].get("keyword") != "c["] + languages
    asked, differ = 0, Counter[str]()
    for text in texts:
        for name, arguments in draw.sample(cases, 8):
            theirs = instructions_registry.INSTRUCTION_DICT[name](name)
            theirs.build_description(**arguments)
            verdicts = [bool(loose.strip() and theirs.check_following(loose)) for loose in ifeval.loose_texts(text)]
            ours = ifeval.followed(text, [name], [arguments])
            asked += 1
            differ[name] += (ours.strict[0], ours.loose[0]) != (verdicts[0], any(verdicts))
    print(f"ifeval: {asked} verdicts on {len(texts)} texts, differing: {dict(differ.most_common(3))}")


def main() -> None:
    """One comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with gsm8k, math and xstest")
    parser.add_argument("what", choices=["prompts", "math", "ifeval"])
    given = parser.parse_args()
    {"prompts": compare_prompts, "math": compare_math, "ifeval": compare_ifeval}[given.what](given.data)


if __name__ == "__main__":
    main()
