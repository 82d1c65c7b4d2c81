"""The chat templates that a model's files hold, by name: `default`, and others such as `tool_use`.

transformers keeps them in tokenizer_config.json (a text, or a list of named ones), in chat_template.jinja and in the
folder additional_chat_templates; GGUF in `tokenizer.chat_template` and `tokenizer.chat_template.NAME`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid.errors import FormatError

DEFAULT, TOOL_USE = "default", "tool_use"
FOLDER = "additional_chat_templates"
GGUF_KEY, GGUF_NAMES = "tokenizer.chat_template", "tokenizer.chat_templates"
_LONGEST = 1 << 24  # bytes of one of the files


def folder_templates(folder: Path) -> dict[str, str]:
    """The templates of a folder, name → Jinja; a file of its own goes before tokenizer_config.json.

    Raises:
        FormatError: a template is not UTF-8 text, or the configuration is damaged.
    """
    templates = _configured(folder / "tokenizer_config.json")
    single = folder / "chat_template.jinja"
    if single.is_file():
        templates[DEFAULT] = _text(single)
    for path in sorted((folder / FOLDER).glob("*.jinja")):
        templates[path.stem] = _text(path)
    return templates


def gguf_templates(where: Path | str, fields: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a GGUF file's fields.

    Raises:
        FormatError: one is not a text.
    """
    names = {GGUF_KEY: DEFAULT}
    names |= {key: key.removeprefix(f"{GGUF_KEY}.") for key in fields if key.startswith(f"{GGUF_KEY}.")}
    templates = {name: fields[key] for key, name in names.items() if key in fields}
    wrong = next((name for name, template in templates.items() if not isinstance(template, str)), None)
    if wrong is not None:
        raise FormatError(f"{where}: chat template {wrong!r} is not a text; convert the model again")
    return templates


def gguf_fields(default: str | None, others: Mapping[str, str]) -> dict[str, Any]:
    """The fields that hold templates; other characters of a name than ASCII letters and digits become `_`."""
    fields: dict[str, Any] = {} if default is None else {GGUF_KEY: default}
    named = {
        "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name): name for name in others
    }
    fields |= {f"{GGUF_KEY}.{written}": others[name] for written, name in named.items()}
    return fields | ({GGUF_NAMES: sorted(named)} if named else {})


def config_value(default: str | None, others: Mapping[str, str]) -> str | list[dict[str, str]] | None:
    """What tokenizer_config.json's `chat_template` holds for these templates."""
    if not others:
        return default
    named = {**({} if default is None else {DEFAULT: default}), **others}
    return [{"name": name, "template": template} for name, template in named.items()]


def _configured(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise FormatError(f"{path}: not JSON; fetch it again") from None
    template = values.get("chat_template") if isinstance(values, dict) else None
    rows = (
        template
        if isinstance(template, list)
        else []
        if template is None
        else [{"name": DEFAULT, "template": template}]
    )
    templates: dict[str, str] = {}
    for row in rows:
        name, text = (row.get("name"), row.get("template")) if isinstance(row, Mapping) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise FormatError(f"{path}: chat_template is neither a text nor a list of named ones; correct the file")
        templates[name] = text
    return templates


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LONGEST:
            raise FormatError(f"{path}: {path.stat().st_size} bytes are too many for this file; fetch it again")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise FormatError(f"{path}: not UTF-8 text; fetch it again") from None
