"""DPO's loss and gradients against TRL's trainer on the same batch; packed, padded and alone."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from camelid.data.chats.examples import Example, Pair
from camelid.errors import MissingError
from camelid.model.llama_torch import LlamaTorch
from camelid.train.answers.references import References
from camelid.train.losses.dpo import LOSSES, pair_losses, summed
from camelid.train.mixed_precision import Learner
from camelid.train.parallel import Parallel
from camelid.train.stages import dpo
from camelid.train.stages.dpo import Dpo, DpoOptions
from camelid.weights.formats.tensor_names import hf_name
from tests.tiny import tiny_config, tiny_tensors

CONTROL = 319  # an id that ends a turn


def make_pairs(draw, count):
    """Ragged prompts and answers, each answer ending with a control token."""
    pairs = []
    for _ in range(count):
        prompt = draw.integers(0, 300, draw.integers(1, 20))
        answers = []
        for _ in range(2):
            answer = np.append(draw.integers(0, 300, draw.integers(1, 25)), CONTROL)
            learned = np.arange(len(prompt) + len(answer)) >= len(prompt)
            answers.append(Example(np.concatenate([prompt, answer]), learned))
        pairs.append(Pair(*answers))
    return pairs


class Held:
    """Pairs of one step."""

    n_steps, n_pairs = 0, 0

    def __init__(self, pairs, special):
        self.pairs, self.tokenizer = pairs, SimpleNamespace(special_ids=special)

    def step(self, step, rank, n_ranks):
        return self.pairs

    def fingerprint(self):
        return "held"


def objective_of(tmp_path, pairs, reference, monkeypatch, special=(("<end>", CONTROL),), **options):
    given = {"context": 64, "precision": "fp32", "steps": 1, "warmup_share": 0, "nll_weight": 0, "skip_control": False}
    options = DpoOptions(**{**given, **options})
    monkeypatch.setattr(dpo, "open_weights", lambda path: SimpleNamespace(config=tiny_config()))
    held, references = Held(pairs, dict(special)), References(tmp_path / "reference.jsonl", {})
    references.add(pairs, [tuple(row) for row in reference])
    return Dpo(options, tmp_path, held, held, references, Parallel())


def model_of(seed=0):
    torch.set_num_threads(1)
    config = tiny_config()
    return LlamaTorch(config, 128).load(tiny_tensors(config, seed), torch.float32)


def learn(objective, model):
    """Loss parts of a step, and the gradients by name."""
    learner = Learner(model, objective.options, objective.parallel, fuse=False)
    share, parts = objective.batch(0, learner), 0.0
    model.zero_grad()
    for piece in objective.micro_batches(share):
        loss = objective.loss(learner, objective.size(share).learned, *(torch.as_tensor(part) for part in piece))
        loss.total.backward()
        parts = parts + loss.parts
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return objective.metrics(parts.tolist()), gradients


def near(one, other):
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in other.values())
    for name in one:
        assert float((one[name] - other[name]).abs().max()) <= 1e-5 * max(1.0, largest), name


def of_trl(pairs, reference, kinds, weights, beta, smoothing):
    """Loss, metrics and gradients of TRL's own function, on a padded batch, for a model of the same numbers."""
    pytest.importorskip("trl")
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    config = tiny_config()
    shape = {"hidden_size": config.dim, "num_hidden_layers": config.n_layers, "vocab_size": config.vocab_size}
    shape |= {"num_attention_heads": config.n_heads, "num_key_value_heads": config.n_kv_heads}
    shape |= {"intermediate_size": config.ffn_dim, "head_dim": config.head_dim, "tie_word_embeddings": False}
    shape |= {"rms_norm_eps": config.norm_eps, "rope_theta": config.rope_theta, "max_position_embeddings": 512}
    model = LlamaForCausalLM(LlamaConfig(**shape, attn_implementation="eager"))
    ours = {hf_name(name): torch.from_numpy(array) for name, array in tiny_tensors(config).items()}
    model.load_state_dict({name if "." in name else f"{name}.weight": value for name, value in ours.items()})
    add_fused_lm_head(model.train(), outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    examples = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    width = max(len(example.ids) for example in examples)
    batch = {name: torch.zeros(len(examples), width, dtype=torch.int64) for name in BATCH}
    for row, example in enumerate(examples):
        for name, values in zip(BATCH, (example.ids, np.ones_like(example.ids), example.learned), strict=True):
            batch[name][row, : len(values)] = torch.as_tensor(values)
    logprobs = torch.tensor(reference, dtype=torch.float32)
    batch |= {"ref_chosen_logps": logprobs[:, 0], "ref_rejected_logps": logprobs[:, 1]}
    alone = SimpleNamespace(device="cpu", gather=lambda value: value, gather_for_metrics=lambda value: value)
    trainer = SimpleNamespace(
        **{"model": model, "accelerator": alone, "aux_loss_enabled": False, "ld_alpha": None, "beta": beta},
        **{"precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "loss_types": kinds},
        **{"loss_weights": weights, "label_smoothing": smoothing, "use_weighting": False, "_tp_size": 1},
        **{"_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0},
    )
    loss = DPOTrainer._compute_loss(trainer, model, batch, False)
    loss.backward()
    told = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return loss.item(), told, gradients


BATCH = ("input_ids", "attention_mask", "completion_mask")
CASES = {
    "sigmoid": (["sigmoid"], 0.0),
    "sigmoid_norm": (["sigmoid_norm"], 0.0),
    "ipo": (["ipo"], 0.0),
    "hinge": (["hinge"], 0.0),
    "robust": (["robust"], 0.2),
}


@pytest.mark.parametrize("nll", [0.0, 0.2])
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_loss_and_gradients_are_trl_s(tmp_path, monkeypatch, kind, nll, seed):
    draw = np.random.default_rng(seed)
    pairs = make_pairs(draw, 5)
    reference = draw.normal(-60, 4, (5, 2)).astype(np.float32).tolist()
    kinds, smoothing = CASES[kind]
    weights = [1.0, nll] if nll else [1.0]
    wanted, told, theirs = of_trl(pairs, reference, kinds + ["sft"] * bool(nll), weights, 0.3, smoothing)
    more = {"nll_weight": nll, "nll_mean": "tokens", "label_smoothing": smoothing, "micro_rows": 2}
    objective = objective_of(tmp_path, pairs, reference, monkeypatch, loss=kind, beta=0.3, **more)
    metrics, gradients = learn(objective, model_of())
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5)
    names = {"chosen_reward": "rewards/chosen", "rejected_reward": "rewards/rejected", "margin": "rewards/margins"}
    names |= {"accuracy": "rewards/accuracies", "chosen_logprob": "logps/chosen", "rejected_logprob": "logps/rejected"}
    for ours, name in names.items():
        assert metrics[ours] == pytest.approx(told[name], rel=1e-5, abs=1e-5), ours
    near({hf_of(name): gradient for name, gradient in gradients.items()}, theirs)


def hf_of(name):
    theirs = hf_name(name.removesuffix(".weight"))
    return theirs if theirs.endswith(".weight") else f"{theirs}.weight"


def test_label_smoothing_of_one_pair_is_trl_s(tmp_path, monkeypatch):
    """The conservative loss: TRL has it where it sorts the pairs (`aot`), which changes nothing of a single one."""
    draw = np.random.default_rng(3)
    pairs = make_pairs(draw, 1)
    wanted, _, theirs = of_trl(pairs, [[-50.0, -58.0]], ["aot"], [1.0], 0.3, 0.25)
    objective = objective_of(
        tmp_path, pairs, [(-50.0, -58.0)], monkeypatch, loss="sigmoid", beta=0.3, label_smoothing=0.25
    )
    metrics, gradients = learn(objective, model_of())
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5)
    near({hf_of(name): gradient for name, gradient in gradients.items()}, theirs)


def test_values_by_hand():
    """A gap of ln 3 at β 1: σ = 3/4; robust with ε = 1/4 is (¾ ln 4/3 − ¼ ln 4) / ½."""
    log = float(np.log(3))
    logprobs, reference = torch.tensor([[-2.0, -4.0 - log]]), torch.tensor([[-2.0, -4.0]])
    lengths = torch.tensor([[2.0, 4.0]])
    found = {kind: pair_losses(logprobs, reference, lengths, kind=kind, beta=1).loss.item() for kind in LOSSES}
    assert found["sigmoid"] == found["robust"] == pytest.approx(np.log(4 / 3))
    assert found["sigmoid_norm"] == pytest.approx(np.log1p(np.exp(-log / 4)))
    assert found["hinge"] == 0
    assert found["ipo"] == pytest.approx((log / 4 - 0.5) ** 2)
    smooth = {
        kind: pair_losses(logprobs, reference, lengths, kind=kind, beta=1, smoothing=0.25).loss.item()
        for kind in ("sigmoid", "robust")
    }
    assert smooth["sigmoid"] == pytest.approx(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    assert smooth["robust"] == pytest.approx((0.75 * np.log(4 / 3) - 0.25 * np.log(4)) / 0.5)
    assert pair_losses(logprobs, reference, lengths, kind="hinge", beta=0.5).rejected.item() == pytest.approx(-log / 2)


def test_sums_leave_out_what_is_nobody_s():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    sums = summed(values, torch.tensor([1, -1, 1, 0]), 3)
    assert sums.tolist() == [8, 5, 0]
    sums.sum().backward()
    assert values.grad.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_packed_and_alone_are_one(tmp_path, monkeypatch, kind):
    draw = np.random.default_rng(4)
    pairs = make_pairs(draw, 7)
    reference = [tuple(row) for row in draw.normal(-60, 4, (7, 2)).tolist()]
    more = {"loss": kind, "nll_weight": 0.2, "skip_control": True}
    found = []
    for number, size in enumerate(({"micro_rows": 2}, {"micro_rows": 9}, {"micro_rows": 3, "compile": True})):
        objective = objective_of(tmp_path / str(number), pairs, reference, monkeypatch, **more, **size)
        found.append(learn(objective, model_of()))
    for metrics, gradients in found[1:]:
        assert metrics == pytest.approx(found[0][0], rel=1e-5, abs=1e-6)
        near(gradients, found[0][1])
    each = [objective_of(tmp_path / f"p{n}", [pairs[n]], [reference[n]], monkeypatch, **more) for n in range(7)]
    assert np.mean([learn(one, model_of())[0]["loss"] for one in each]) == pytest.approx(found[0][0]["loss"], rel=1e-5)


def test_control_tokens_are_no_part_of_a_preference_but_of_the_chosen_answer(tmp_path, monkeypatch):
    pairs = make_pairs(np.random.default_rng(5), 3)
    reference = [(-50.0, -50.0)] * 3
    model, found = model_of(), {}
    for skip in (False, True):
        objective = objective_of(
            tmp_path / str(skip), pairs, reference, monkeypatch, skip_control=skip, nll_weight=1, nll_mean="tokens"
        )
        found[skip] = learn(objective, model)[0]
    without = [
        Pair(*(Example(each.ids[:-1], each.learned[:-1]) for each in (pair.chosen, pair.rejected))) for pair in pairs
    ]
    objective = objective_of(tmp_path / "cut", without, reference, monkeypatch)
    cut = learn(objective, model)[0]
    for name in ("chosen_logprob", "rejected_logprob", "preference_loss"):
        assert found[True][name] == pytest.approx(cut[name], rel=1e-6)
        assert found[False][name] != pytest.approx(cut[name], rel=1e-3)
    assert found[True]["nll"] == pytest.approx(found[False]["nll"], rel=1e-6)


def test_a_pair_without_a_reference(tmp_path, monkeypatch):
    pairs = make_pairs(np.random.default_rng(6), 2)
    objective = objective_of(tmp_path, pairs[:1], [(-1.0, -1.0)], monkeypatch)
    objective.pairs.pairs = pairs
    with pytest.raises(MissingError, match=r"reference\.jsonl: a pair has no log-probability"):
        objective.batch(0, None)
