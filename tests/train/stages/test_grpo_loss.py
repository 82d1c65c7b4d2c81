"""GRPO's loss and gradients against TRL's trainer on the same answers; packed and alone; its parts by hand."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.chats.examples import Prompt
from camelid.model.llama_torch import LlamaTorch
from camelid.train.answers import stage
from camelid.train.answers.frozen import logprobs_of
from camelid.train.answers.groups import Group
from camelid.train.losses.grpo import NORMS, Totals, advantages, token_losses
from camelid.train.mixed_precision import Learner
from camelid.train.parallel import Parallel
from camelid.train.rollouts.rollouts import Answer
from camelid.train.stages.grpo import Generation, Grpo, GrpoOptions
from camelid.weights.formats.tensor_names import hf_name
from tests.tiny import tiny_config, tiny_tensors

MOST = 20  # tokens of an answer


def make_groups(draw, count=3, answers=4):
    """Ragged prompts and answers; the first group is flat."""
    groups = []
    for number in range(count):
        prompt = Prompt(draw.integers(0, 300, draw.integers(1, 15)), ())
        written = [
            Answer(tuple(draw.integers(0, 300, draw.integers(1, MOST + 1)).tolist()), True) for _ in range(answers)
        ]
        rewards = np.ones(answers) if number == 0 else draw.normal(size=answers)
        gains = advantages(torch.from_numpy(rewards)[None])[0].numpy()
        groups.append(Group(prompt, written, [""] * answers, rewards[:, None], rewards, gains))
    return groups


def objective_of(tmp_path, monkeypatch, **options):
    given = {"context": 64, "precision": "fp32", "steps": 1, "max_tokens": MOST, "beta": 0, "skip_flat": False}
    given |= {"prompts_per_generation": 4, "answers": 4, "updates": 2, "reward": "code:none"}
    monkeypatch.setattr(stage, "open_weights", lambda path: SimpleNamespace(config=tiny_config()))
    prompts = SimpleNamespace(tokenizer=None, seed=0, fingerprint=lambda: "held")
    return Grpo(GrpoOptions(**{**given, **options}), tmp_path, tmp_path, prompts, None, (), Parallel(), tmp_path)


def model_of(seed=0):
    torch.set_num_threads(1)
    config = tiny_config()
    return LlamaTorch(config, 128).load(tiny_tensors(config, seed), torch.float32)


def ragged(draw, groups, like, width):
    """Log-probabilities some way from those of the model, as after a few steps."""
    return [[(values + draw.normal(0, width, len(values))).astype(np.float32) for values in own] for own in like]


def measured(objective, model, groups):
    learner = Learner(model, objective.options, objective.parallel, fuse=False)
    return logprobs_of(objective, learner, [group.examples() for group in groups])


def learn(objective, model, groups, old, reference):
    """Loss parts of a step, and the gradients by name."""
    learner = Learner(model, objective.options, objective.parallel, fuse=False)
    share = objective._learned(Generation(groups, old, reference), range(len(groups)))
    model.zero_grad()
    parts = 0.0
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
        assert float((one[name] - other[name]).abs().max()) <= 1e-5 * max(0.1, largest), name


def hf_of(name):
    theirs = hf_name(name.removesuffix(".weight"))
    return theirs if theirs.endswith(".weight") else f"{theirs}.weight"


def of_trl(groups, old, reference, kind, clip, beta, temperature):
    """Loss, metrics and gradients of TRL's own function: prompts padded on the left, answers on the right."""
    pytest.importorskip("trl")
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import GRPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    config = tiny_config()
    shape = {"hidden_size": config.dim, "num_hidden_layers": config.n_layers, "vocab_size": config.vocab_size}
    shape |= {"num_attention_heads": config.n_heads, "num_key_value_heads": config.n_kv_heads}
    shape |= {"intermediate_size": config.ffn_dim, "head_dim": config.head_dim, "tie_word_embeddings": False}
    shape |= {"rms_norm_eps": config.norm_eps, "rope_theta": config.rope_theta, "max_position_embeddings": 512}
    model = LlamaForCausalLM(LlamaConfig(**shape, attn_implementation="eager")).train()
    model.load_state_dict({hf_of(name): torch.from_numpy(array) for name, array in tiny_tensors(config).items()})
    add_fused_lm_head(model, temperature=temperature, outputs=("log_probs", "entropy"))
    rows = [(group.prompt.ids, answer.ids) for group in groups for answer in group.answers]
    wide, long = (max(len(row[part]) for row in rows) for part in (0, 1))
    batch = {"prompt_ids": torch.zeros(len(rows), wide, dtype=torch.int64)}
    batch |= {"completion_ids": torch.zeros(len(rows), long, dtype=torch.int64)}
    batch |= {"prompt_mask": torch.zeros_like(batch["prompt_ids"])}
    batch |= {"completion_mask": torch.zeros_like(batch["completion_ids"])}
    known = {name: torch.zeros(len(rows), long) for name in ("old_per_token_logps", "ref_per_token_logps")}
    for row, (prompt, answer) in enumerate(rows):
        batch["prompt_ids"][row, wide - len(prompt) :] = torch.as_tensor(prompt)
        batch["prompt_mask"][row, wide - len(prompt) :] = 1
        batch["completion_ids"][row, : len(answer)] = torch.as_tensor(answer)
        batch["completion_mask"][row, : len(answer)] = 1
        for name, values in zip(known, (old, reference), strict=True):
            flat = [value for own in values for value in own]
            known[name][row, : len(answer)] = torch.from_numpy(flat[row])
    gains = torch.from_numpy(np.concatenate([group.gains for group in groups])).float()
    batch |= {**known, "advantages": gains, "num_items_in_batch": batch["completion_mask"].sum()}
    accelerator = SimpleNamespace(
        device="cpu",
        num_processes=1,
        is_main_process=False,
        autocast=nullcontext,
        gather=lambda value: value,
        reduce=lambda value, reduction: value,
    )
    args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
    trainer = SimpleNamespace(
        **{"model": model, "accelerator": accelerator, "args": args, "loss_type": kind, "beta": beta},
        **{"epsilon_low": clip[0], "epsilon_high": clip[1], "max_completion_length": MOST, "use_vllm": False},
        **{"top_entropy_quantile": 1.0, "aux_loss_enabled": False, "off_policy_mask_threshold": None},
        **{"importance_sampling_level": "token", "_entropy_bonus_enabled": False, "temperature": temperature},
        **{"current_gradient_accumulation_steps": 1, "_metrics": {"train": defaultdict(list)}},
        **{"model_kwarg_keys": set(), "vllm_importance_sampling_correction": False},
    )
    trainer._get_per_token_logps_and_entropies = lambda *given, **more: GRPOTrainer._get_per_token_logps_and_entropies(
        trainer, *given, **more
    )
    loss = GRPOTrainer._compute_loss(trainer, model, batch)
    loss.backward()
    told = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    return loss.item(), told, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize(("clip", "beta", "temperature"), [((0.2, 0.2), 0.0, 1.0), ((0.2, 0.28), 0.1, 0.7)])
@pytest.mark.parametrize("seed", [1, 2])
def test_loss_and_gradients_are_trl_s(tmp_path, monkeypatch, kind, clip, beta, temperature, seed):
    draw = np.random.default_rng(seed)
    groups = make_groups(draw)
    more = {"epsilon": clip[0], "epsilon_high": clip[1], "temperature": temperature, "micro_rows": 1}
    objective = objective_of(tmp_path, monkeypatch, loss=kind, beta=beta, **more)
    now = measured(objective, model_of(), groups)
    old, reference = ragged(draw, groups, now, 0.3), ragged(draw, groups, now, 0.5)
    wanted, told, theirs = of_trl(groups, old, reference, kind, clip, beta, temperature)
    metrics, gradients = learn(objective, model_of(), groups, old, reference)
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert metrics["clip_share"] == pytest.approx(told["clip_ratio/region_mean"], rel=1e-5)
    assert metrics["entropy"] == pytest.approx(told["entropy"], rel=1e-5)
    assert 0.05 < metrics["clip_share"] < 0.6
    if beta:
        assert metrics["kl"] == pytest.approx(told["kl"], rel=1e-5)
    near({hf_of(name): gradient for name, gradient in gradients.items()}, theirs)


@pytest.mark.parametrize("kind", NORMS)
def test_packed_and_alone_are_one(tmp_path, monkeypatch, kind):
    draw = np.random.default_rng(3)
    groups = make_groups(draw, 4)
    found, old = [], None
    for size in ({"micro_rows": 1}, {"micro_rows": 9}, {"micro_rows": 3, "compile": True}):
        objective = objective_of(tmp_path, monkeypatch, loss=kind, beta=0.1, **size)
        old = old or ragged(draw, groups, measured(objective, model_of(), groups), 0.3)
        found.append(learn(objective, model_of(), groups, old, old))
    for metrics, gradients in found[1:]:
        assert metrics == pytest.approx(found[0][0], rel=1e-5, abs=1e-6)
        near(gradients, found[0][1])


def test_answers_measured_packed_are_those_measured_alone(tmp_path, monkeypatch):
    groups = make_groups(np.random.default_rng(4), 3)
    objective = objective_of(tmp_path, monkeypatch, temperature=0.7)
    together = measured(objective, model_of(), groups)
    for number, group in enumerate(groups):
        for one, other in zip(together[number], measured(objective, model_of(), [group])[0], strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert [len(values) for values in together[0]] == [len(answer.ids) for answer in groups[0].answers]


def test_what_nothing_can_be_learned_from_is_left_out(tmp_path, monkeypatch):
    draw = np.random.default_rng(5)
    groups = make_groups(draw, 2)
    old = measured(objective_of(tmp_path, monkeypatch), model_of(), groups)
    found = {}
    for skip in (False, True):
        objective = objective_of(tmp_path, monkeypatch, skip_flat=skip)
        found[skip] = objective._learned(Generation(groups, old, None), range(2))
    assert [len(found[skip].examples) for skip in (False, True)] == [8, 4]
    alone = objective._learned(Generation(groups[1:], old[1:], None), range(1))
    assert (found[True].weights == alone.weights).all()
    flat = objective._learned(Generation(groups[:1], old[:1], None), range(1))
    assert len(flat.examples) == 4  # there is nothing else
    assert not flat.gains.any()


def test_parts_by_hand():
    """Rewards 1, 0, 0, 1: mean ½, unbiased deviation 1/√3. A ratio of 2 counts 1.2 at a gain of 1, and 2 at −1."""
    gains = advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    each = 0.5 / (3**-0.5 + 1e-4)
    assert gains[0].tolist() == pytest.approx([each, -each, -each, each])
    assert advantages(torch.tensor([[3.0, 1.0]]), "none").tolist() == [[1, -1]]
    both = advantages(torch.tensor([[3.0, 1.0], [5.0, 5.0]]), "batch")
    assert both.tolist() == [pytest.approx([1 / (11 / 3) ** 0.5, -1 / (11 / 3) ** 0.5], rel=1e-3), [0, 0]]
    logprobs = torch.log(torch.tensor([0.2, 0.2, 0.05, 0.05])).requires_grad_()
    old, gain = torch.log(torch.tensor([0.1, 0.1, 0.1, 0.1])), torch.tensor([1.0, -1.0, 1.0, -1.0])
    found = token_losses(logprobs, old, gain)
    assert found.loss.tolist() == pytest.approx([-1.2, 2.0, -0.5, 0.8])
    assert found.clipped.tolist() == [True, False, False, True]
    found.loss.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([0, 2.0, -0.5, 0])
    kl = token_losses(logprobs, old, gain, old, beta=0.5, clip=(0.2, 0.28))
    wanted = [0.5 - np.log(0.5) - 1, 0.5 - np.log(0.5) - 1, 2 - np.log(2) - 1, 2 - np.log(2) - 1]
    assert kl.kl.tolist() == pytest.approx(wanted)
    assert kl.loss.tolist() == pytest.approx(
        [-1.28 + wanted[0] / 2, 2 + wanted[1] / 2, -0.5 + wanted[2] / 2, 0.8 + wanted[3] / 2]
    )
    totals = Totals(answers=2, tokens=10, most=16)
    assert {kind: weigh(4, totals) for kind, weigh in NORMS.items()} == {"grpo": 0.25, "dr_grpo": 1 / 16, "dapo": 0.2}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9), st.sampled_from(["group", "batch", "none"]))
def test_advantages_of_a_group_sum_to_nothing(rewards, scale):
    gains = advantages(torch.tensor([rewards], dtype=torch.float64), scale)
    assert abs(gains.sum().item()) < 1e-6
    assert torch.isfinite(gains).all()
    order = np.argsort(rewards, kind="stable")
    assert (np.diff(gains[0].numpy()[order]) >= -1e-9).all()
