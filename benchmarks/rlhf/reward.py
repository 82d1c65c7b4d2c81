"""Speed of reward models beside TRL 1.16's RewardTrainer, as `posttrain.py` measures it: one process, in turns.

    PYTHONPATH=. python benchmarks/rlhf/reward.py reward [--shape smollm2-135m] [--quick] [--only NAME …]

Run it where TRL is installed. Everybody learns from the same random pairs as in `dpo.py` (lengths as of HH's dialogues,
ragged), eight a step. TRL pads a step's sixteen texts to the longest; it has no packing for pairs. camelid packs them
without padding, in its own loop. Tokens are those of both texts of a pair, padding left out.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.rlhf import posttrain
from benchmarks.rlhf.dpo import PAIRS, pairs_of
from benchmarks.rlhf.posttrain import Shape, Step, Taken, Turn, llama_of, trl_options, word_tokenizer
from camelid.model.llama_torch import LlamaTorch
from camelid.train.init import initialise, initialise_score
from camelid.train.loop import State, optimise
from camelid.train.mixed_precision import Learner
from camelid.train.optim import make_optimizer
from camelid.train.parallel import Parallel


class Unnamed:
    """In place of a tokenizer: what fills a row."""

    eos_id = 1


def reward_camelid(shape: Shape, count: int) -> Step:
    """The loop of `camelid train`."""
    from dataclasses import replace

    from camelid.train.stages.reward import Piece, Reward, RewardOptions

    options = RewardOptions(
        **{"steps": 10**6, "pairs": PAIRS, "context": shape.context, "lr": 1e-5, "weight_decay": 0.1},
        **{"margins": "none", "compile": False},
    )
    parallel, pairs = Parallel(), pairs_of(shape, count)
    config = replace(shape.config, scalar_head=True, ties_embeddings=False)
    n_tokens = 0

    class Given(Reward):
        def __init__(self) -> None:
            self.options, self.config, self.seed, self.tokenizer = options, config, 0, Unnamed()
            self._parallel, self._rows = parallel, max(2, options.rows_at_once(1, False))
            self._alike = False

        def batch(self, step: int, learner: Learner) -> tuple[Piece, ...]:
            nonlocal n_tokens
            start = step * PAIRS % (len(pairs) - PAIRS + 1)
            own = pairs[start : start + PAIRS]
            n_tokens = sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in own)
            return self._pieces(own)

    with torch.device("meta"):
        model = LlamaTorch(config, shape.context)
    parallel.shard(model)
    initialise(model, 0)
    initialise_score(model, (config.dim + 1) ** -0.5, 0)
    learner = Learner(model, options, parallel, False)
    steps = optimise(State(model, make_optimizer(model, options)), learner, Given(), parallel)

    def step() -> Turn:
        started = time.perf_counter()
        next(steps)
        return time.perf_counter() - started, n_tokens

    return step


def reward_trl(shape: Shape, count: int) -> Step:
    """RewardTrainer on the same pairs."""
    from datasets import Dataset
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    rows = []
    for pair in pairs_of(shape, count):
        both = {"chosen_ids": pair.chosen.ids, "rejected_ids": pair.rejected.ids}
        rows.append({name: ids.tolist() for name, ids in both.items()})

    class Given(RewardTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *given: Any, **more: Any) -> Any:
            return dataset  # ids already

    config = llama_of(shape).config
    config.num_labels, config.pad_token_id, config.tie_word_embeddings = 1, 0, False
    trainer = Given(
        LlamaForSequenceClassification(config),
        args=trl_options(shape, RewardConfig, PAIRS, max_length=shape.context),
        train_dataset=Dataset.from_list(rows),
        processing_class=word_tokenizer(shape),
    )
    return Taken(trainer, lambda inputs: int(inputs["attention_mask"].sum()))


def main() -> None:
    posttrain.STAGES["reward"] = {"camelid": reward_camelid, "TRL": reward_trl}
    posttrain.main()


if __name__ == "__main__":
    main()
