"""Which language a document is in, by py3langid (97 languages, offline)."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import Field

from camelid.data.document import Document
from camelid.data.stage_stats import StageStats
from camelid.data.word_hashes import Words
from camelid.errors import MissingError, OptionError, one_of
from camelid.options import Options


class Language(Options):
    """Languages that stay."""

    keep: tuple[str, ...] = Field(("en",), min_length=1, description="ISO 639-1 codes.")
    threshold: float = Field(0.5, ge=0, le=1, description="Least probability of the language found.")
    characters: int = Field(1000, ge=1, description="How much of a document is looked at, from its beginning.")


def language(document: Document, words: Words, options: Language, stats: StageStats) -> Document | str:
    """Drop documents in other languages; the language found is noted in the metadata.

    Raises:
        MissingError: py3langid is not installed.
        OptionError: py3langid does not know a language that is to be kept.
    """
    identifier = _identifier()
    unknown = [code for code in options.keep if code not in identifier.nb_classes]
    if unknown:
        raise OptionError(f"data.rules.language.keep: no such language; {one_of(unknown[0], identifier.nb_classes)}")
    code, probability = identifier.classify(document.text[: options.characters])
    if code not in options.keep:
        return f"language {code}"
    if probability < options.threshold:
        return f"language uncertain, {code}"
    return document.with_meta(language=code, language_probability=round(float(probability), 4))


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingError("data.rules.language: needs py3langid; pip install 'camelid[data]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
