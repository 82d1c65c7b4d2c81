"""config.json ↔ ModelConfig. A key that might touch the arithmetic is used or refused by name; others are ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from camelid.errors import FormatError, UnsupportedError, one_of
from camelid.model.config import ModelConfig, RopeScaling
from camelid.model.family import ARCHITECTURES, Architecture
from camelid.weights.formats.unknown_keys import first_refused, warn_ignored

# Keys that change no number of a forward pass in evaluation, whatever they hold.
# fmt: off
_HARMLESS = frozenset((
    "architectures", "attention_dropout", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping",
    "embd_pdrop", "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "hidden_dropout", "id2label",
    "initializer_range", "is_llama_config", "label2id", "length_penalty", "max_length", "min_length", "model_type",
    "name_or_path", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences",
    "output_attentions", "output_hidden_states", "output_scores", "pad_token_id", "prefix", "pretraining_tp",
    "problem_type", "remove_invalid_values", "repetition_penalty", "resid_pdrop", "return_dict",
    "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
    "unk_token_id", "unsloth_fixed", "unsloth_version", "use_cache",
))
# fmt: on

# Keys with one value that camelid does.
_ONLY: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "partial_rotary_factor": (1, 1.0),
    "is_decoder": (True, False),
    "is_causal": (True,),
    "use_bidirectional_attention": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "rope_interleaved": (False,),
}
_LARGEST = 3e38  # of a float32
_ROPE_TYPES = ("default", "linear", "llama3", "yarn", "dynamic", "longrope")


def read_config(path: Path, values: Mapping[str, Any]) -> ModelConfig:
    """The shape of a model from the keys of its config.json at `path`.

    Raises:
        FormatError: a key is missing or of the wrong kind.
        UnsupportedError: another architecture, or a key with arithmetic that is not supported.
    """
    keys = _ConfigKeys(path, values)
    architecture, scalar_head = _architecture(keys)
    dim, heads = keys.whole("hidden_size"), keys.whole("num_attention_heads")
    if heads <= 0 or (dim % heads and keys.get("head_dim") is None):
        raise FormatError(f"{path}: {heads} heads do not divide hidden_size {dim}; correct the file")
    scaling = _scaling(keys)
    config = ModelConfig(
        architecture=architecture.name,
        dim=dim,
        n_layers=keys.whole("num_hidden_layers"),
        n_heads=heads,
        n_kv_heads=keys.whole("num_key_value_heads", heads),
        head_dim=keys.whole("head_dim", dim // heads),
        ffn_dim=keys.whole("intermediate_size"),
        vocab_size=keys.whole("vocab_size"),
        context=_context(keys, scaling),
        rope_theta=_theta(keys),
        rope_scaling=scaling,
        ties_embeddings=keys.flag("tie_word_embeddings", False) and not scalar_head,
        scalar_head=scalar_head,
        attention_bias=keys.flag("attention_bias", False),
        **_switches(architecture, keys),
    )
    keys.refuse_others()
    return config


def write_config(path: Path, config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The keys of a config.json for this shape; `dtype` is torch's word, such as "bfloat16". `path` is for errors."""
    architecture = ARCHITECTURES[config.architecture]
    values: dict[str, Any] = {
        "architectures": [_rating(architecture) if config.scalar_head else architecture.hf_class],
        "model_type": architecture.hf_model_type,
        "attention_bias": config.attention_bias,
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "intermediate_size": config.ffn_dim,
        "max_position_embeddings": _max_positions(config),
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "num_key_value_heads": config.n_kv_heads,
        "rope_scaling": _write_scaling(path, config.rope_scaling),
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.ties_embeddings,
        "torch_dtype": dtype,
        "vocab_size": config.vocab_size,
    }
    if config.scalar_head:
        values |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "problem_type": "regression"}
    if config.architecture == "olmo":
        values["clip_qkv"] = config.clip_qkv
    else:
        values["rms_norm_eps"] = config.norm_eps
    if config.architecture == "llama":
        values |= {"head_dim": config.head_dim, "mlp_bias": config.mlp_bias}
    elif config.head_dim * config.n_heads != config.dim:
        raise UnsupportedError(f"{path}: {architecture.hf_class} has no head_dim other than hidden_size / heads")
    if config.dim % config.n_heads:
        raise UnsupportedError(f"{path}: transformers needs hidden_size to be a multiple of the heads; write a GGUF")
    return values


class _ConfigKeys:
    """The keys of one file; remembers which were asked for."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values
        self.asked: set[str] = set()

    def get(self, key: str) -> Any:
        self.asked.add(key)
        return self.values.get(key)

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            what = "is missing" if value is None else f"must be a whole number, is {str(value)[:40]!r}"
            raise FormatError(f"{self.path}: {key} {what}; correct the file")
        return value

    def real(self, key: str, default: float) -> float:
        value = self.get(key)
        return default if value is None else number(self.path, key, value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if not isinstance(value, bool | None):
            raise FormatError(f"{self.path}: {key} must be true or false, is {str(value)[:40]!r}; correct the file")
        return default if value is None else value

    def refuse_others(self) -> None:
        """Refuse what is left where it may touch the arithmetic; say what else is ignored."""
        unknown = {}
        for key, value in self.values.items():
            if key in self.asked or key in _HARMLESS or key.startswith(("_", "transformers.")):
                continue
            if key not in _ONLY:
                unknown[key] = value
            elif value is not None and value not in _ONLY[key]:
                self._refuse(key)
        refused = first_refused(unknown)
        if refused is not None:
            self._refuse(refused)
        warn_ignored(self.path, unknown)

    def _refuse(self, key: str) -> NoReturn:
        raise UnsupportedError(f"{self.path}: {key} = {str(self.values[key])[:60]} is not supported")


def number(path: Path, key: str, value: Any) -> float:
    """A key's value as a float.

    Raises:
        FormatError: it is not a finite number.
    """
    valid = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST  # nor NaN
    if not valid:
        raise FormatError(f"{path}: {key} must be a number, is {str(value)[:40]!r}; correct the file")
    return float(value)


def _rating(architecture: Architecture) -> str:
    """transformers' class for a model with a scalar head: LlamaForSequenceClassification."""
    return architecture.hf_class.replace("ForCausalLM", "ForSequenceClassification")


def _architecture(keys: _ConfigKeys) -> tuple[Architecture, bool]:
    """The architecture, and whether the model has a scalar head."""
    name = keys.get("model_type")
    known = {row.hf_model_type: row for row in ARCHITECTURES.values()}
    if name is None:
        raise FormatError(f"{keys.path}: model_type is missing; this is not a transformers model's config.json")
    if not isinstance(name, str) or name not in known:
        raise UnsupportedError(f"{keys.path}: model_type {str(name)!r} is not supported; {one_of(str(name), known)}")
    classes = keys.get("architectures")
    wanted = known[name].hf_class
    named = [str(name).lower() for name in (classes if isinstance(classes, list) else [classes])]
    rates = named == [_rating(known[name]).lower()]
    if classes and not rates and named != [wanted.lower()]:  # LLaMAForCausalLM in 2023
        raise UnsupportedError(f"{keys.path}: architectures {str(classes)[:60]} is not supported; only {wanted} is")
    labels = keys.get("id2label")
    if rates and (not isinstance(labels, dict) or len(labels) != 1):
        raise UnsupportedError(f"{keys.path}: gives {len(labels or ()) or 2} numbers a text; one is read")
    if keys.get("quantization_config") is not None:
        raise UnsupportedError(f"{keys.path}: quantization_config: this quantised format is not supported; use a GGUF")
    return known[name], rates


def _switches(architecture: Architecture, keys: _ConfigKeys) -> dict[str, Any]:
    """How this architecture differs from Llama, and the epsilon of its norms."""
    if architecture.name == "olmo":
        clip = keys.get("clip_qkv")
        return {"norm": "layer", "clip_qkv": None if clip is None else number(keys.path, "clip_qkv", clip)}
    if architecture.name == "olmo2":
        return {"norms_after": True, "qk_norm": True, "norm_eps": keys.real("rms_norm_eps", 1e-5)}
    return {"norm_eps": keys.real("rms_norm_eps", 1e-6), "mlp_bias": keys.flag("mlp_bias", False)}


def _rope(keys: _ConfigKeys) -> dict[str, Any]:
    """What the file says about rotary embedding, from `rope_scaling` or transformers 5's `rope_parameters`."""
    parts = [keys.get("rope_scaling") or {}, keys.get("rope_parameters") or {}]
    if not all(isinstance(part, Mapping) for part in parts):
        raise FormatError(f"{keys.path}: rope_scaling must be an object or null; correct the file")
    if any(isinstance(value, Mapping) for part in parts for value in part.values()):
        raise UnsupportedError(f"{keys.path}: rope_parameters differ from layer to layer")
    older, newer = parts
    differs = next((key for key in older if key in newer and older[key] != newer[key]), None)
    if differs is not None:
        raise FormatError(f"{keys.path}: rope_scaling and rope_parameters differ in {differs}; correct the file")
    return {key: value for part in parts for key, value in part.items() if value is not None}


def _theta(keys: _ConfigKeys) -> float:
    inner, outer = _rope(keys).get("rope_theta"), keys.get("rope_theta")
    if inner is not None and outer is not None and inner != outer:
        raise FormatError(f"{keys.path}: rope_theta is {outer}, but {inner} in rope_parameters; correct the file")
    value = outer if inner is None else inner
    return 10000.0 if value is None else number(keys.path, "rope_theta", value)


def _scaling(keys: _ConfigKeys) -> RopeScaling | None:
    rope, path = _rope(keys), keys.path
    rope.pop("rope_theta", None)
    old, rule = rope.pop("type", "default"), rope.pop("rope_type", None)
    rule = old if rule is None else rule
    if rule not in _ROPE_TYPES:
        raise UnsupportedError(f"{path}: rope_type {str(rule)!r} is not supported; supported: {', '.join(_ROPE_TYPES)}")
    if rope.pop("partial_rotary_factor", 1) != 1:
        raise UnsupportedError(f"{path}: partial_rotary_factor in rope_parameters is not supported")

    def take(key: str, default: float | None = None) -> float:
        value = rope.pop(key, default)
        if value is None:
            raise FormatError(f"{path}: rope_type {rule!r} needs {key}; correct the file")
        return number(path, key, value)

    context, outer = keys.whole("max_position_embeddings", 2048), keys.get("original_max_position_embeddings")
    if outer is not None and rule in ("llama3", "yarn", "longrope"):
        rope["original_max_position_embeddings"] = outer  # where Phi-3 has it; it comes first in transformers
    scaling: RopeScaling | None = None
    if rule == "linear":
        scaling = RopeScaling(rule="linear", factor=take("factor"))
    elif rule == "dynamic":
        scaling = RopeScaling(rule="dynamic", factor=max(1.0, take("factor")), original_context=context)
    elif rule == "longrope":
        scaling = _longrope(keys, rope, int(take("original_max_position_embeddings", context)))
    elif rule == "llama3":
        scaling = RopeScaling(
            rule="llama3",
            factor=take("factor"),
            low_freq_factor=take("low_freq_factor"),
            high_freq_factor=take("high_freq_factor"),
            original_context=int(take("original_max_position_embeddings", context)),
        )
    elif rule == "yarn":
        factor = take("factor")
        scaling = RopeScaling(
            rule="yarn",
            factor=factor,
            original_context=int(take("original_max_position_embeddings", context)),
            beta_fast=take("beta_fast", 32.0),
            beta_slow=take("beta_slow", 1.0),
            attention_factor=_yarn_attention(path, rope, factor),
        )
        if rope.pop("truncate", True) is not True:
            raise UnsupportedError(f"{path}: truncate = false in rope_parameters is not supported")
    unknown = [key for key, value in rope.items() if key != "finetuned" and value not in (False, "", [], {})]
    if unknown:
        raise UnsupportedError(f"{path}: {unknown[0]} in rope_scaling of type {rule!r} is not supported")
    if scaling is not None and not (scaling.factor > 0 and scaling.original_context > 0):
        raise FormatError(f"{path}: rope_scaling: factor and original context must be positive; correct the file")
    return None if scaling is not None and rule == "linear" and scaling.factor == 1 else scaling


def _longrope(keys: _ConfigKeys, rope: dict[str, Any], original: int) -> RopeScaling:
    """Two lists of divisors; attention is scaled by what the file says, else by how far the context was stretched."""
    path, divisors = keys.path, {}
    for key in ("short_factor", "long_factor"):
        values = rope.pop(key, None)
        if not isinstance(values, list) or not values:
            raise FormatError(f"{path}: rope_type 'longrope' needs {key}, a list of numbers; correct the file")
        divisors[key] = tuple(number(path, key, value) for value in values)
        if min(divisors[key]) <= 0:
            raise FormatError(f"{path}: {key} must be positive numbers; correct the file")
    factor, attention = rope.pop("factor", None), rope.pop("attention_factor", None)
    stretched = keys.whole("max_position_embeddings", 2048) / original if original > 0 else 1
    stretched = stretched if factor is None else number(path, "factor", factor)
    scale = math.sqrt(1 + math.log(stretched) / math.log(original)) if stretched > 1 and original > 1 else 1.0
    return RopeScaling(
        rule="longrope",
        original_context=original,
        attention_factor=scale if attention is None else number(path, "attention_factor", attention),
        divisors=divisors["short_factor"],
        long_divisors=divisors["long_factor"],
    )


def _context(keys: _ConfigKeys, scaling: RopeScaling | None) -> int:
    """Dynamic scaling changes nothing within max_position_embeddings: it is for texts up to `factor` times as long."""
    if scaling is not None and scaling.rule == "dynamic":
        return int(scaling.original_context * scaling.factor)
    return keys.whole("max_position_embeddings", 2048)


def _max_positions(config: ModelConfig) -> int:
    scaling = config.rope_scaling
    return scaling.original_context if scaling is not None and scaling.rule == "dynamic" else config.context


def _yarn_attention(path: Path, rope: dict[str, Any], factor: float) -> float | None:
    """YaRN's attention factor, if the file sets it directly or by DeepSeek's two constants."""
    given, top, bottom = (rope.pop(key, None) for key in ("attention_factor", "mscale", "mscale_all_dim"))
    if given is not None:
        return number(path, "attention_factor", given)
    if not (top and bottom) or factor <= 1:
        return None
    return (0.1 * number(path, "mscale", top) * math.log(factor) + 1) / (
        0.1 * number(path, "mscale_all_dim", bottom) * math.log(factor) + 1
    )


def _write_scaling(path: Path, scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.rule == "divisors":
        raise UnsupportedError(f"{path}: config.json has no word for this model's rope_freqs; write a GGUF")
    values: dict[str, Any] = {"rope_type": scaling.rule, "factor": scaling.factor}
    if scaling.rule == "longrope":
        values = {"rope_type": scaling.rule, "attention_factor": scaling.attention_factor}
        values |= {"short_factor": list(scaling.divisors), "long_factor": list(scaling.long_divisors)}
    if scaling.rule not in ("linear", "dynamic"):
        values["original_max_position_embeddings"] = scaling.original_context
    if scaling.rule == "llama3":
        values |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    if scaling.rule == "yarn":
        values |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor is not None:
            values["attention_factor"] = scaling.attention_factor
    return values
