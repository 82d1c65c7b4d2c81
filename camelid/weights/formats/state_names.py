"""Names that training programs give to a model's tensors, brought back to Hugging Face's.

torch.compile, FSDP, checkpointing and DataParallel put the name of their wrapper into the path; a model inside another
one has a longer beginning; the bare model without its output matrix a shorter one. What a tensor is stays the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from camelid.errors import FormatError, UnsupportedError
from camelid.weights.formats.safetensors_file import Stored
from camelid.weights.formats.unknown_keys import touches_arithmetic

log = logging.getLogger(__name__)

_WRAPPERS = frozenset(("_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_EMBEDDING, _HEAD, _MODEL = "embed_tokens.weight", "lm_head.weight", "model."


def plain_names(where: Path, tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors as transformers' LlamaForCausalLM calls them.

    Raises:
        UnsupportedError: an adapter's tensors are among them. FormatError: two tensors have the same name then.
    """
    adapted = next((name for name in tensors if ".lora_" in name or ".base_layer." in name), None)
    if adapted is not None:
        raise UnsupportedError(f"{where}: {adapted}: an adapter that is not merged; merge it, and save the model again")
    names = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in tensors}
    beginnings = {name.removesuffix(_EMBEDDING) for name in names.values() if name.endswith(_EMBEDDING)}
    if len(beginnings) == 1 and beginnings != {_MODEL}:
        (beginning,) = beginnings
        outside = beginning.removesuffix(_MODEL)  # where the output matrix lies
        names = {name: _moved(plain, beginning, outside) for name, plain in names.items()}
    plain = {names[name]: stored for name, stored in tensors.items()}
    if len(plain) != len(tensors):
        last = {names[name]: name for name in tensors}  # of those with the same name
        twice = next(name for name in tensors if last[names[name]] != name)
        raise FormatError(f"{where}: {twice} and another tensor are both {names[twice]}; save the model again")
    return plain


def without_notes(where: Path, tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Only weights: without frequencies, which follow from the config, and single numbers such as a step count."""
    weights = {name: stored for name, stored in tensors.items() if not name.endswith(".rotary_emb.inv_freq")}
    notes = [name for name, stored in weights.items() if not stored.shape and not touches_arithmetic(name)]
    if notes:
        log.warning("%s: single numbers, ignored: %s", where, ", ".join(ascii(name)[1:-1] for name in notes[:5]))
    wide = [name for name, stored in weights.items() if stored.dtype == "F64"]
    if wide:
        log.warning("%s: %d tensors are float64; they are rounded to float32", where, len(wide))
    return {name: stored for name, stored in weights.items() if name not in notes}


def _moved(name: str, beginning: str, outside: str) -> str:
    if name == outside + _HEAD:
        return _HEAD
    return _MODEL + name.removeprefix(beginning) if name.startswith(beginning) and name != _HEAD else name
