"""Speed of DPO beside TRL 1.16's DPOTrainer, as `posttrain.py` measures it: one process, in turns.

    PYTHONPATH=. python benchmarks/rlhf/dpo.py dpo [--shape smollm2-135m] [--quick] [--only NAME …]

Run it where TRL is installed. Everybody learns from the same random pairs (lengths as of HH's dialogues: a prompt and
two answers, ragged), eight a step, β .1, without a term for the chosen answer. TRL pads a step's sixteen texts to the
longest; it has no packing for pairs. It is measured with its reference's log-probabilities computed before, as camelid
has them, and with its default, which asks the reference in each step. camelid packs without padding, in its own loop.
Tokens are those of both texts of a pair, padding left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rlhf import posttrain
from benchmarks.rlhf.posttrain import Shape, Step, Taken, learning, llama_of, trl_options, word_tokenizer
from camelid.data.chats.examples import Example, Pair
from camelid.train.mixed_precision import Learner
from camelid.train.parallel import Parallel

PAIRS = 8  # of a step


def pairs_of(shape: Shape, count: int, seed: int = 0) -> list[Pair]:
    """Random ids: a prompt around an eighth of a row long and answers around a sixteenth, log-normal."""
    draw = np.random.default_rng(seed)

    def some(part: int) -> Any:
        length = int(np.exp(draw.normal(np.log(shape.context / part), 0.7)).clip(4, shape.context // 2))
        return draw.integers(2, shape.config.vocab_size, length)

    pairs = []
    for _ in range(count):
        prompt, chosen, rejected = some(8), some(16), some(16)
        texts = (np.concatenate([prompt, answer]) for answer in (chosen, rejected))
        pairs.append(Pair(*(Example(ids, np.arange(len(ids)) >= len(prompt)) for ids in texts)))
    return pairs


def pairs_at(step: int, pairs: list[Pair]) -> tuple[list[Pair], int]:
    """Those of a step, over and over, and their tokens."""
    start = step * PAIRS % (len(pairs) - PAIRS + 1)
    own = pairs[start : start + PAIRS]
    return own, sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in own)


def dpo_camelid(shape: Shape, count: int) -> Step:
    """The loop of `camelid train`."""
    from camelid.train.answers.packed import Packer
    from camelid.train.answers.references import References
    from camelid.train.stages.dpo import Dpo, DpoOptions, PairShare

    options = DpoOptions(
        **{"steps": 10**6, "pairs_per_step": PAIRS, "context": shape.context, "lr": 1e-5, "weight_decay": 0.1},
        **{"warmup_share": 0.0, "nll_weight": 0.0, "skip_control": False, "compile": False},
    )
    parallel, pairs = Parallel(), pairs_of(shape, count)
    n_tokens = 0

    class Given(Dpo):
        def __init__(self) -> None:
            self.options, self.config, self.seed, self.parallel = options, shape.config, 0, parallel
            self.packer, self._control = Packer(options, parallel, together=2), np.zeros(0, np.int64)
            self.references = References(Path("/dev/null/none"), {})
            self.references.add(pairs, [(-400.0, -400.0)] * len(pairs))

        def batch(self, step: int, learner: Learner) -> PairShare:
            nonlocal n_tokens
            own, n_tokens = pairs_at(step, pairs)
            return self._share(own)

    return learning(Given(), shape, parallel, lambda: n_tokens)


def dpo_trl(asked_before: bool) -> Callable[[Shape, int], Step]:
    """DPOTrainer on the same pairs."""

    def make(shape: Shape, count: int) -> Step:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        rows = []
        for pair in pairs_of(shape, count):
            begin = int((~pair.chosen.learned).sum())
            row = {"prompt_ids": pair.chosen.ids[:begin], "chosen_ids": pair.chosen.ids[begin:]}
            row |= {"rejected_ids": pair.rejected.ids[begin:]}
            rows.append({name: ids.tolist() for name, ids in row.items()})
        config = trl_options(
            shape,
            DPOConfig,
            PAIRS,
            beta=0.1,
            max_length=shape.context,
            precompute_ref_log_probs=asked_before,
        )
        more = {} if asked_before else {"ref_model": llama_of(shape)}

        class Given(DPOTrainer):  # type: ignore[misc]
            def _prepare_dataset(self, dataset: Any, *given: Any, **more: Any) -> Any:
                return dataset  # ids already

        trainer = Given(
            llama_of(shape),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=word_tokenizer(shape),
            **more,
        )
        return Taken(trainer, lambda inputs: int(inputs["attention_mask"].sum()))

    return make


def main() -> None:
    posttrain.STAGES["dpo"] = {
        "camelid": dpo_camelid,
        "TRL, asked before": dpo_trl(True),
        "TRL": dpo_trl(False),
    }
    posttrain.main()


if __name__ == "__main__":
    main()
