"""Speed of post-training beside TRL 1.16's trainers: one process, in turns, A B C A B C …

    python benchmarks/rlhf/posttrain.py sft [--shape smollm2-135m] [--quick] [--only NAME …]

Run it where TRL is installed, with camelid's tree on PYTHONPATH. Everybody gets the same random conversations (lengths
as of real ones, 40 % of each learned), float32 weights under bf16 arithmetic, fused AdamW, clipped gradients, and
camelid's tuning of malloc. TRL's trainer runs its own `train()`, in a thread that waits while it is another's turn; it
packs (best fit, without padding) or pads, both of which are measured, without gradient checkpointing. camelid runs its
own loop on its own packed rows. Tokens are those of conversations, padding and filling left out. Prints tokens/s
(median, lowest to highest) and the ratio to the best peer, the median over turns side by side; appends a JSON line to
benchmarks/results/posttrain.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from camelid.data.batches import TrainingBatch
from camelid.data.chats.examples import Example
from camelid.machine import keep_freed_memory, threads
from camelid.model.config import ModelConfig
from camelid.model.llama_torch import LlamaTorch
from camelid.train.init import initialise, initialise_score
from camelid.train.loop import State, optimise
from camelid.train.mixed_precision import Learner
from camelid.train.objective import Objective
from camelid.train.optim import make_optimizer
from camelid.train.packing import pack
from camelid.train.parallel import Parallel

RESULTS = Path(__file__).parent.parent / "results" / "posttrain.jsonl"
LEARNED = 0.4  # of a conversation's tokens


@dataclass(frozen=True)
class Shape:
    """A model, and how much of what a step learns from."""

    config: ModelConfig
    context: int
    rows: int


def _shape(dim: int, layers: int, heads: int, kv: int, ffn: int, vocab: int, context: int, rows: int) -> Shape:
    sizes = {"dim": dim, "n_layers": layers, "n_heads": heads, "n_kv_heads": kv, "head_dim": dim // heads}
    config = ModelConfig(**sizes, ffn_dim=ffn, vocab_size=vocab, context=context, ties_embeddings=True)
    return Shape(config, context, rows)


SHAPES = {
    "smollm2-135m": _shape(576, 30, 9, 3, 1536, 49152, 1024, 4),
    "tiny": _shape(64, 2, 4, 2, 128, 512, 128, 2),  # to see that the script runs
}

Turn = tuple[float, int]
"""Seconds of a step, and tokens of conversations in it."""
Step = Callable[[], Turn]


def conversations(shape: Shape, count: int, seed: int = 0) -> list[Example]:
    """Random ids; lengths are log-normal around a quarter of a row, as those of public chats, and never longer than
    one; the last part of each is learned."""
    draw = np.random.default_rng(seed)
    lengths = np.exp(draw.normal(np.log(shape.context / 4), 0.7, count)).astype(int).clip(16, shape.context)
    made = []
    for length in lengths.tolist():
        learned = np.arange(length) >= length * (1 - LEARNED)
        made.append(Example(draw.integers(0, shape.config.vocab_size, length), learned))
    return made


def rows_of(shape: Shape, examples: list[Example]) -> Iterator[tuple[TrainingBatch, int]]:
    """Steps of packed rows and how many tokens of conversations they have, over and over."""
    packed = pack(examples, shape.context)
    owners = np.stack([np.unique(row, return_inverse=True)[1] for row in packed.owners]).astype(np.int32)
    n_steps = len(packed.ids) // shape.rows
    while True:
        for step in range(n_steps):
            rows = slice(step * shape.rows, (step + 1) * shape.rows)
            columns = (packed.ids[rows], packed.targets[rows], packed.positions[rows], owners[rows])
            share = TrainingBatch(*columns, np.arange(rows.start, rows.stop))
            yield share, int((packed.owners[rows] >= 0).sum())


def sft_camelid(shape: Shape, count: int) -> Step:
    """The loop of `camelid train`."""
    from camelid.train.stages.sft import Sft, SftOptions

    options = SftOptions(
        steps=10**6, batch_tokens=shape.rows * shape.context, context=shape.context, lr=1e-5, compile=False
    )
    parallel = Parallel()
    shares = rows_of(shape, conversations(shape, count))
    n_tokens = 0

    class Given(Sft):
        def __init__(self) -> None:
            self.options, self.config, self.seed = options, shape.config, 0
            self._rows = options.rows_at_once(1, gpu=False)

        def batch(self, step: int, learner: Learner) -> TrainingBatch:
            nonlocal n_tokens
            share, n_tokens = next(shares)
            return share

    return learning(Given(), shape, parallel, lambda: n_tokens)


def learning(
    objective: Objective[Any], shape: Shape, parallel: Parallel, tokens: Callable[[], int], score: bool = False
) -> Step:
    """The loop of `camelid train` over an objective.

    Args:
        tokens: how many the step that was just made had.
        score: the model ends in a scalar head.
    """
    with torch.device("meta"):
        model = LlamaTorch(objective.config, shape.context)
    parallel.shard(model)
    initialise(model, 0)
    if score:
        initialise_score(model, (objective.config.dim + 1) ** -0.5, 0)
    learner = Learner(model, objective.options, parallel, False)
    steps = optimise(State(model, make_optimizer(model, objective.options)), learner, objective, parallel)

    def step() -> Turn:
        started = time.perf_counter()
        next(steps)
        return time.perf_counter() - started, tokens()

    return step


def llama_of(shape: Shape) -> Any:
    """transformers' Llama of a shape, float32, with SDPA attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = shape.config
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )


class Taken:
    """A trainer of TRL's in a thread, which makes one step when it is asked for one."""

    def __init__(self, trainer: Any, count: Callable[[Any], int]) -> None:
        from transformers import TrainerCallback

        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._tokens, self._seconds, self._failed = 0, 0.0, list[BaseException]()
        outer = self

        class Waits(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *given: Any, **more: Any) -> None:
                outer._go.acquire()
                outer._tokens, outer._started = 0, time.perf_counter()

            def on_step_end(self, *given: Any, **more: Any) -> None:
                outer._seconds = time.perf_counter() - outer._started
                outer._done.release()

        trainer.add_callback(Waits())
        plain = trainer.training_step

        def counting(model: Any, inputs: Any, *given: Any, **more: Any) -> Any:
            outer._tokens += count(inputs)
            return plain(model, inputs, *given, **more)

        trainer.training_step = counting

        def work() -> None:
            torch.set_num_threads(threads()[0])
            try:
                trainer.train()
            except BaseException as error:
                self._failed.append(error)
            self._done.release()

        threading.Thread(target=work, daemon=True).start()

    def __call__(self) -> Turn:
        self._go.release()
        self._done.acquire()
        if self._failed:
            raise self._failed[0]
        return self._seconds, self._tokens


def trl_options(shape: Shape, kind: Any, rows: int, **more: Any) -> Any:
    """What all of TRL's trainers are told."""
    return kind(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=rows,
        max_steps=10**6,
        learning_rate=1e-5,
        lr_scheduler_type="cosine",
        optim="adamw_torch_fused",
        weight_decay=0.1,
        bf16=True,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
        **more,
    )


def word_tokenizer(shape: Shape) -> Any:
    """A tokenizer that trainers ask for, and do not use."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<eos>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def sft_trl(packs: bool) -> Callable[[Shape, int], Step]:
    """SFTTrainer on the same conversations: packed as camelid's rows are, or padded, so many that tokens are alike."""

    def make(shape: Shape, count: int) -> Step:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        examples = conversations(shape, count)
        labels = [np.where(each.learned, each.ids, -100).tolist() for each in examples]
        rows = Dataset.from_dict({"input_ids": [each.ids.tolist() for each in examples], "labels": labels})
        each_row = (
            shape.rows if packs else max(1, round(shape.rows * shape.context / np.mean([len(e.ids) for e in examples])))
        )
        config = trl_options(
            shape,
            SFTConfig,
            each_row,
            max_length=shape.context,
            packing=packs,
            padding_free=packs,
            dataset_kwargs={"skip_prepare_dataset": False},
        )
        trainer = SFTTrainer(llama_of(shape), args=config, train_dataset=rows, processing_class=word_tokenizer(shape))

        def tokens(inputs: Any) -> int:
            mask = inputs.get("attention_mask")
            return int(inputs["input_ids"].numel() if mask is None else mask.sum())

        return Taken(trainer, tokens)

    return make


# Stage → who takes part. camelid comes first; a peer is called with the shape and how many conversations there are.
STAGES: dict[str, dict[str, Callable[[Shape, int], Step]]] = {
    "sft": {"camelid": sft_camelid, "TRL, packed": sft_trl(True), "TRL, padded": sft_trl(False)},
}


def measure(shape: Shape, stage: str, names: list[str], rounds: int, steps: int) -> dict[str, list[float]]:
    """Tokens/s of each contender's turns."""
    torch.manual_seed(0)
    count = 16 * shape.rows
    run = {}
    for name in names:
        run[name] = STAGES[stage][name](shape, count)
        for _ in range(2):
            seconds, tokens = run[name]()
        print(f"{name}: {tokens:,} tokens in {seconds:.2f} s", file=sys.stderr)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            gc.collect()
            turns = [run[name]() for _ in range(steps)]
            rates[name].append(sum(tokens for _, tokens in turns) / sum(seconds for seconds, _ in turns))
    return rates


def report(title: str, stage: str, shape: Shape, rates: dict[str, list[float]]) -> None:
    """Print the table and keep a line of it."""
    middle = {name: statistics.median(values) for name, values in rates.items()}
    peers = {name: rate for name, rate in middle.items() if not name.startswith("camelid")}
    best = max(peers, key=lambda name: peers[name], default=None)
    print(f"{stage}, {title}: {shape.rows} rows of {shape.context}, {torch.get_num_threads()} threads\n")
    print(f"{'':<24}{'tokens/s':>26}{'to the best peer':>18}")
    for name, rate in middle.items():
        cell = f"{rate:,.0f} [{min(rates[name]):,.0f} to {max(rates[name]):,.0f}]"
        ratio = f"{statistics.median(r / p for r, p in zip(rates[name], rates[best], strict=True)):.2f}" if best else ""
        print(f"{name:<24}{cell:>26}{ratio:>18}")
    line = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "stage": stage,
        "shape": title,
        "tokens_per_second": rates,
        "best_peer": best,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each that count")
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn")
    parser.add_argument("--quick", action="store_true", help="two rounds of one step")
    parser.add_argument("--only", nargs="+", help="some of the contenders")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    keep_freed_memory()
    torch.set_num_threads(threads()[0])
    shape, names = SHAPES[chosen.shape], list(chosen.only or STAGES[chosen.stage])
    rounds, steps = (2, 1) if chosen.quick else (chosen.rounds, chosen.steps)
    report(chosen.shape, chosen.stage, shape, measure(shape, chosen.stage, names, rounds, steps))


if __name__ == "__main__":
    main()
