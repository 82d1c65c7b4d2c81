"""The tokenizer and chat format of the model that a stage begins from, and how a data folder keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camelid.data.folder import read_json, write_json
from camelid.errors import FormatError, OptionError
from camelid.tokens.files.save import save_tokenizer
from camelid.tokens.templates.chat_format import FORMATS, ChatFormat, choose_format
from camelid.tokens.tokenizer import Tokenizer
from camelid.weights.open import open_weights

NAME = "chat_format.json"  # in the tokenizer's folder


@dataclass(frozen=True)
class ChatModel:
    """How conversations become ids.

    Attributes:
        tokenizer: of the model.
        template: its own chat template, if that is used.
        named: further templates of its own.
        name: of the chat format that is used instead; a key of `FORMATS`.
    """

    tokenizer: Tokenizer
    template: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None

    @property
    def chat_format(self) -> ChatFormat:
        """How conversations become ids.

        Raises:
            OptionError: the model brings no template, and no format was named.
        """
        return choose_format(self.tokenizer, self.template, self.name, self.named)

    def about(self) -> dict[str, Any]:
        """What decides the ids, for plans and manifests: fingerprint of the tokenizer, name or hash of the format."""
        written = json.dumps([self.template, dict(self.named)]).encode()
        format = self.name or f"template {hashlib.sha256(written).hexdigest()[:16]}"
        return {"tokenizer": self.tokenizer.fingerprint(), "chat_format": format}

    def save(self, folder: Path) -> None:
        """Write both into a folder that is there; `read_chat_model` reads them."""
        jinja = FORMATS[self.name].jinja if self.name is not None else self.template
        save_tokenizer(self.tokenizer, folder, chat_template=jinja)
        write_json(folder / NAME, {"name": self.name, "template": self.template, "named": dict(self.named)})


def open_chat_model(path: Path, chat_format: str | None = None) -> ChatModel:
    """The tokenizer and chat format of a model.

    Args:
        path: a file or folder for `open_weights`.
        chat_format: a key of `FORMATS`, to be used instead of the model's own template.

    Raises:
        OptionError: the model brings no template and no format is named, or its tokenizer has no end token.
        MissingError, FormatError, UnsupportedError: it cannot be opened.
    """
    weights = open_weights(path)
    model = (
        ChatModel(weights.tokenizer, weights.chat_template, dict(weights.named_templates))
        if chat_format is None
        else ChatModel(weights.tokenizer, name=chat_format)
    )
    _ = model.chat_format  # says so now if there is none
    if model.tokenizer.eos_id is None:
        raise OptionError(f"{path}: its tokenizer has no token that ends a text; take another model")
    return model


def read_chat_model(folder: Path) -> ChatModel:
    """What `ChatModel.save` wrote.

    Raises:
        MissingError, FormatError: it is gone or damaged.
    """
    values = read_json(folder / NAME)
    kinds: dict[str, Any] = {"name": str | None, "template": str | None, "named": dict}
    if (
        not isinstance(values, dict)
        or {*values} != {*kinds}
        or not all(isinstance(values[key], kinds[key]) for key in kinds)
    ):
        raise FormatError(f"{folder / NAME}: is not as expected; prepare the data again")
    if not all(isinstance(template, str) for template in values["named"].values()):
        raise FormatError(f"{folder / NAME}: a named template is no text; prepare the data again")
    return ChatModel(Tokenizer.open(folder), **values)
