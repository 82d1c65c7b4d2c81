"""What a model's files recommend for sampling, in the words of `SamplingParams`: generation_config.json, GGUF's fields.

The meaning is that of the program whose file it is: transformers' GenerationConfig, llama.cpp's options. What camelid
has no word for, or cannot read, is named once in the log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Sampling = dict[str, Any]

# Our word → transformers', for what is one number on both sides.
_HF = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical": "typical_p",
    "epsilon": "epsilon_cutoff",
    "eta": "eta_cutoff",
    "repetition_penalty": "repetition_penalty",
    "max_tokens": "max_new_tokens",
}
# Our word → what follows `general.sampling.` in GGUF.
_GGUF = {
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
    "penalty_window": "penalty_last_n",
}
_WHOLE = ("top_k", "max_tokens", "penalty_window")
_HF_LISTS = ("suppress_tokens", "bad_words_ids", "stop_strings")
# Of no effect on which token comes next, or used elsewhere.
# fmt: off
_SILENT = frozenset((
    "_from_model_config", "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind",
    "bos_token_id", "cache_config", "cache_implementation", "compile_config", "decoder_start_token_id",
    "disable_compile", "do_sample", "eos_token_id", "is_assistant", "low_memory", "max_length",
    "max_matching_ngram_size", "max_time", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "output_attentions", "output_hidden_states", "output_logits", "output_scores", "pad_token_id",
    "prefill_chunk_size", "prompt_lookup_num_tokens", "renormalize_logits", "return_dict",
    "return_dict_in_generate", "return_legacy_cache", "target_lookbehind", "token_healing",
    "transformers_version", "trust_remote_code", "use_cache",
))
# fmt: on
# Values that say nothing: transformers' defaults before version 5, and llama.cpp's for what is off.
_OFF: tuple[object, ...] = (None, False, 0, 1, "", [], {})


def from_generation_config(path: Path, values: Mapping[str, Any]) -> Sampling:
    """What a generation_config.json recommends.

    `do_sample: false` is greedy. With `do_sample: true`, a temperature or top_p that is left out is 1, which is what
    transformers leaves out when it saves. Without `do_sample`, what is left out is ours.
    """
    recommended, unused = _numbers(values, _HF)
    if values.get("do_sample") is True:
        recommended = {"temperature": 1.0, "top_p": 1.0} | recommended
    elif values.get("do_sample") is False:
        recommended["temperature"] = 0.0
    bias, rest = _banned(values)
    if bias:
        recommended["logit_bias"] = bias
    unused += rest
    stops = values.get("stop_strings")
    stops = [stops] if isinstance(stops, str) else stops
    if isinstance(stops, list) and stops and all(isinstance(stop, str) and stop for stop in stops):
        recommended["stop"] = tuple(stops)
    elif stops:
        unused.append(_shown("stop_strings", stops))
    known = {*_HF.values(), *_HF_LISTS, *_SILENT}
    unused += [_shown(key, value) for key, value in values.items() if key not in known and value not in _OFF]
    _warn_unused(path, unused)
    return recommended


def from_gguf(path: Path, fields: Mapping[str, Any]) -> Sampling:
    """What a GGUF's `general.sampling.` fields recommend."""
    start = "general.sampling."
    values = {key.removeprefix(start): fields[key] for key in fields if key.startswith(start)}
    recommended, unused = _numbers(values, _GGUF)
    if recommended.get("temperature", 0.0) < 0:  # greedy there
        recommended["temperature"] = 0.0
    window = recommended.pop("penalty_window", -1)
    if window > 0:
        recommended["penalty_window"] = window
    elif window == 0:  # no penalty there
        recommended.pop("repetition_penalty", None)
    unused += [_shown(key, value) for key, value in values.items() if key not in _GGUF.values() and value not in _OFF]
    _warn_unused(path, unused)
    return recommended


def to_generation_config(path: Path, sampling: Mapping[str, Any]) -> Sampling:
    """The keys of a generation_config.json; what it has no word for is named in the log."""
    values: Sampling = {}
    if sampling:
        values["do_sample"] = sampling.get("temperature") != 0
    for ours, theirs in _HF.items():
        if ours in sampling and not (ours == "temperature" and sampling[ours] == 0):
            values[theirs] = sampling[ours]
    banned = sorted(id for id, value in sampling.get("logit_bias", {}).items() if value == -math.inf)
    if banned:
        values["suppress_tokens"] = banned
    if sampling.get("stop"):
        values["stop_strings"] = list(sampling["stop"])
    _warn_left_out(path, sampling, {*_HF, "logit_bias", "stop"})
    return values


def to_gguf(path: Path, sampling: Mapping[str, Any]) -> Sampling:
    """The `general.sampling.` fields; what GGUF has no word for is named in the log."""
    sampling = dict(sampling)
    if sampling.get("repetition_penalty", 1.0) != 1.0:  # transformers' looks at all that was read and written
        sampling.setdefault("penalty_window", -1)
    _warn_left_out(path, sampling, {*_GGUF})
    return {f"general.sampling.{theirs}": sampling[ours] for ours, theirs in _GGUF.items() if ours in sampling}


def _numbers(values: Mapping[str, Any], words: Mapping[str, str]) -> tuple[Sampling, list[str]]:
    """Numbers by our names, and what is not a number."""
    numbers: Sampling = {}
    unused = []
    for ours, theirs in words.items():
        value = values.get(theirs)
        if value is None:
            continue
        wrong = isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
        if wrong or (ours in _WHOLE and value != int(value)):
            unused.append(_shown(theirs, value))
        else:
            numbers[ours] = int(value) if ours in _WHOLE else float(value)
    if numbers.get("top_k", 0) < 0:
        numbers["top_k"] = 0  # -1 keeps all
    if numbers.get("top_p") == 0:  # the likeliest alone always stays
        del numbers["top_p"]
        numbers["top_k"] = 1
    return numbers, unused


def _banned(values: Mapping[str, Any]) -> tuple[dict[int, float], list[str]]:
    """Ids that may not come, as a bias; words of several ids cannot be banned here."""
    single = values.get("suppress_tokens") or []
    words = values.get("bad_words_ids") or []
    unused = [] if _are_ids(single) else [_shown("suppress_tokens", single)]
    ids = list(single) if not unused else []
    if not isinstance(words, list) or not all(map(_are_ids, words)):
        return dict.fromkeys(ids, -math.inf), [*unused, _shown("bad_words_ids", words)]
    ids += [word[0] for word in words if len(word) == 1]
    longer = [word for word in words if len(word) != 1]
    return dict.fromkeys(ids, -math.inf), unused + ([_shown("bad_words_ids", longer)] if longer else [])


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(id) is int and id >= 0 for id in value)


def _shown(key: str, value: object) -> str:
    text = str(value)
    return f"{key} {text if len(text) <= 30 else text[:30] + '…'}"


def _warn_unused(path: Path, unused: list[str]) -> None:
    if unused:
        log.warning("%s: recommended for sampling and not used: %s", path, ", ".join(unused))


def _warn_left_out(path: Path, sampling: Mapping[str, Any], written: set[str]) -> None:
    left = [name for name in sampling if name not in written]
    if left:
        log.warning("%s: this format has no field for the recommended %s, so it is left out", path, ", ".join(left))
