"""Speed of reward models beside TRL 1.16's RewardTrainer, as `posttrain.py` measures it: one process, in turns.

    PYTHONPATH=. python benchmarks/rlhf/reward.py reward [--shape smollm2-135m] [--quick] [--only NAME …]

Run it where TRL is installed. Everybody learns from the same random pairs as in `dpo.py` (lengths as of HH's dialogues,
ragged), eight a step. TRL pads a step's sixteen texts to the longest; it has no packing for pairs. camelid packs them
without padding, in its own loop. Tokens are those of both texts of a pair, padding left out.
"""

from __future__ import annotations

from typing import Any

from benchmarks.rlhf import posttrain
from benchmarks.rlhf.dpo import PAIRS, pairs_at, pairs_of
from benchmarks.rlhf.posttrain import Shape, Step, Taken, learning, llama_of, trl_options, word_tokenizer
from camelid.train.mixed_precision import Learner
from camelid.train.parallel import Parallel


def reward_camelid(shape: Shape, count: int) -> Step:
    """The loop of `camelid train`."""
    from dataclasses import replace

    from camelid.train.answers.packed import Packer
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
            self.options, self.config, self.seed = options, config, 0
            self.packer = Packer(options, parallel, together=2)

        def batch(self, step: int, learner: Learner) -> tuple[Piece, ...]:
            nonlocal n_tokens
            own, n_tokens = pairs_at(step, pairs)
            return self._pieces(own)

    return learning(Given(), shape, parallel, lambda: n_tokens, score=True)


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
