"""The loss of conversations and its gradients against transformers, in every chat format; packed, padded, alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from camelid.data.batches import IGNORED, TrainingBatch
from camelid.data.chats.examples import Example
from camelid.model.llama_torch import LlamaTorch
from camelid.tokens.templates.chat_format import FORMATS, template_format
from camelid.tokens.templates.message import Message
from camelid.train.losses.neftune import noise
from camelid.train.mixed_precision import Learner
from camelid.train.packing import pack
from camelid.train.parallel import Parallel
from camelid.train.stages.sft import Sft, SftOptions
from camelid.weights.formats.tensor_names import hf_name
from tests.tiny import tiny_config
from tests.tokens.vocabularies import small_bytes, small_llama2, smollm2_template

HEADERS = (
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
)
CHATML = ("<|im_end|>", "<|im_start|>")
KINDS = {
    "llama2": (small_llama2(), "</s>"),
    "codellama": (small_llama2(), "</s>"),
    "codellama70b": (small_llama2("<step>"), "<step>"),
    "llama3": (small_bytes(*HEADERS), "<|eot_id|>"),
    "llama3.1": (small_bytes(*HEADERS), "<|eot_id|>"),
    "chatml": (small_bytes(*CHATML), "<|im_end|>"),
}
NAMES = [*KINDS, pytest.param("default model", marks=pytest.mark.slow)]  # another library reads its file
TALKS = [
    [("system", "Be xy."), ("user", "a b?"), ("assistant", "c a b"), ("user", "x?"), ("assistant", "Yes, cab.")],
    [("user", "Is bcs a ☺?"), ("assistant", "sax")],
    [("user", "abc " * 9), ("assistant", "x")],
]


def format_of(name, request):
    """The format, a vocabulary that fits, and what ends a turn."""
    if name != "default model":
        return FORMATS[name], *KINDS[name]
    tokenizer = small_bytes(*CHATML)
    return template_format(tokenizer, smollm2_template(request.getfixturevalue("smollm2_path"))), tokenizer, CHATML[0]


def examples_of(format, tokenizer):
    made = []
    for talk in TALKS:
        shown = format.render(tokenizer, [Message(*turn) for turn in talk], add_generation_prompt=False)
        made.append(Example(np.array(shown.ids), np.array(shown.mask)))
    return made


def share_of(examples, context, rows=None):
    """Examples packed into rows, as a reader gives them."""
    packed = pack(examples, context, rows=rows)
    owners = packed.owners
    documents = np.stack([np.unique(row, return_inverse=True)[1] for row in owners]).astype(np.int32)
    return TrainingBatch(packed.ids, packed.targets, packed.positions, documents, np.arange(len(packed.ids)))


def together(shares):
    """Rows of several shares as those of one."""
    columns = zip(*((s.ids, s.targets, s.positions, s.documents) for s in shares), strict=True)
    ids, targets, positions, documents = (np.concatenate(column) for column in columns)
    return TrainingBatch(ids, targets, positions, documents, np.arange(len(ids)))


class Given(Sft):
    """Learns what it is given."""

    def __init__(self, config, **changes):
        given = {
            "context": 128,
            "batch_tokens": 128,
            "steps": 9,
            "precision": "fp32",
            "compile": False,
            "micro_rows": 1,
        }
        self.options, self.config, self.seed, self._rows = SftOptions(**{**given, **changes}), config, 0, 1


def model_of(config):
    torch.manual_seed(0)
    model = LlamaTorch(config, 512)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.1) + (parameter.dim() == 1)
            )
    return model


def learned(model, share, **changes):
    """Loss, what is measured, and gradients, as a step has them."""
    objective = Given(model.config, **changes)
    model.zero_grad()
    learner = Learner(model, objective.options, Parallel(), False)
    divisor, sums = objective.size(share).learned, 0.0
    for piece in objective.micro_batches(share):
        loss = objective.loss(learner, divisor, *(torch.as_tensor(part) for part in piece))
        loss.total.backward()
        sums = sums + loss.parts
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return objective.metrics(sums.tolist()), grads


def theirs(model, examples, per_conversation=False):
    """The same from transformers' Llama: each conversation alone, prompts masked by -100."""
    config = model.config
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
    )
    own = {hf_name(name.removesuffix(".weight")): name for name, _ in model.named_parameters()}
    state = dict(model.named_parameters())
    llama.load_state_dict({name: state[own[name]].detach() for name in llama.state_dict()})
    losses, right, counts = [], 0, []
    for example in examples:
        ids = torch.from_numpy(example.ids)[None]
        labels = torch.where(torch.from_numpy(example.learned), ids, -100)[:, 1:]
        logits = llama(input_ids=ids).logits[:, :-1]
        losses.append(F.cross_entropy(logits[0], labels[0], ignore_index=-100, reduction="sum"))
        right += int((logits.argmax(-1) == labels).sum())
        counts.append(int((labels != -100).sum()))
    if per_conversation:
        loss = torch.stack([each / count for each, count in zip(losses, counts, strict=True)]).mean()
    else:
        loss = torch.stack(losses).sum() / sum(counts)
    loss.backward()
    grads = {own[name]: parameter.grad for name, parameter in llama.named_parameters()}
    return loss.item(), right / sum(counts), sum(counts), grads


def alike(one, other, tolerance):
    for name in one:
        scale = other[name].abs().max().clamp_min(1e-3)
        assert ((one[name] - other[name]).abs().max() / scale).item() < tolerance, name


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_transformers(name, request):
    format, tokenizer, _ = format_of(name, request)
    examples = examples_of(format, tokenizer)
    model = model_of(tiny_config(vocab_size=tokenizer.vocab_size, n_layers=2))
    loss, accuracy, count, grads = theirs(model, examples)
    packed = share_of(examples, 512)
    assert packed.n_trained == count
    measured, ours = learned(model, packed, context=512, batch_tokens=512)
    assert measured["loss"] == pytest.approx(loss, rel=1e-5)
    assert measured["accuracy"] == pytest.approx(accuracy)
    assert measured["learned_share"] == pytest.approx(count / 512)
    alike(ours, grads, 1e-5)
    each = together([share_of([example], 512) for example in examples])
    padded, apart = learned(model, each, context=512, batch_tokens=512)
    assert padded["loss"] == pytest.approx(measured["loss"], rel=1e-6)
    alike(apart, ours, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_a_turn_is_learned_and_the_opening_of_an_answer_is_not(name, request):
    format, tokenizer, end = format_of(name, request)
    for example, talk in zip(examples_of(format, tokenizer), TALKS, strict=True):
        targets = share_of([example], 512).targets[0]
        taught = targets[targets != IGNORED].tolist()
        assert taught.count(tokenizer.special_ids[end]) == sum(role == "assistant" for role, _ in talk)
        asked = format.render(tokenizer, [Message(*turn) for turn in talk[:-1]])
        assert not any(asked.mask[-3:])


def test_conversations_count_the_same_if_asked():
    tokenizer = KINDS["chatml"][0]
    examples = examples_of(FORMATS["chatml"], tokenizer)
    model = model_of(tiny_config(vocab_size=tokenizer.vocab_size, n_layers=1))
    loss, _, count, grads = theirs(model, examples, per_conversation=True)
    for share in (share_of(examples, 512), together([share_of([example], 512) for example in examples])):
        measured, ours = learned(model, share, context=512, batch_tokens=512, mean_over="conversations")
        assert measured["loss"] == pytest.approx(loss, rel=1e-5)
        assert measured["learned_share"] == pytest.approx(count / share.ids.size)
        alike(ours, grads, 1e-5)


def test_prompts_alone_have_no_gradient():
    tokenizer = KINDS["chatml"][0]
    (example, *_) = examples_of(FORMATS["chatml"], tokenizer)
    model = model_of(tiny_config(vocab_size=tokenizer.vocab_size, n_layers=1))
    nothing = Example(example.ids, np.zeros_like(example.learned))
    both = together([share_of([example], 128), share_of([nothing], 128)])
    _, one = learned(model, share_of([example], 128))
    _, other = learned(model, both)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_noise_is_that_of_the_paper_and_the_same_however_rows_are_cut():
    places = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [0] * 6])
    samples = SimpleNamespace(all=torch.tensor([7, 8]), second=torch.tensor([8]))
    drawn = noise(places, documents, samples.all, 400, 5.0, 3)
    assert torch.equal(drawn[1:], noise(places[1:], documents[1:], samples.second, 400, 5.0, 3))
    assert not torch.equal(drawn, noise(places, documents, samples.all, 400, 5.0, 4))
    for place, length in ((0, 3), (3, 2), (5, 1)):
        bound = 5.0 / (length * 400) ** 0.5
        assert bound * 0.98 < drawn[0, place].abs().max() <= bound
        assert abs(drawn[0, place].mean()) < bound / 5


def test_noise_changes_what_is_learned_and_not_what_is_validated():
    tokenizer = KINDS["chatml"][0]
    share = share_of(examples_of(FORMATS["chatml"], tokenizer), 512)
    model = model_of(tiny_config(vocab_size=tokenizer.vocab_size, n_layers=1))
    given = {"context": 512, "batch_tokens": 512}
    plain, _ = learned(model, share, **given)
    first, grads = learned(model, share, **given, neftune_alpha=5.0)
    again, same = learned(model, share, **given, neftune_alpha=5.0)
    assert first["loss"] != plain["loss"]
    assert first == again
    assert all(torch.equal(grads[name], same[name]) for name in grads)
    objective = Given(model.config, **given, neftune_alpha=5.0)
    learner = Learner(model, objective.options, Parallel(), False)
    with learner.looking():
        parts = [
            objective.loss(learner, 1, *map(torch.as_tensor, piece)).parts for piece in objective.micro_batches(share)
        ]
    assert (sum(parts)[0] / share.n_trained).item() == pytest.approx(plain["loss"], rel=1e-6)
