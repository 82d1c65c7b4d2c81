"""Rules against datatrove's, on random documents, where both define the same; and a crafted document for each reason."""

from __future__ import annotations

import random
import sys

import pytest

from camelid.data.document import Document
from camelid.data.filters.blocked import domain
from camelid.data.filters.c4 import n_sentences
from camelid.data.filters.pii import find_pii
from camelid.data.filters.rules import RULES, Filters, rule_options
from camelid.data.stage import StageReport
from camelid.data.words import Words
from camelid.errors import OptionError

SEED_WORDS = (
    "the be to of and that have with a in is it for on was as by at from they we say her she or an will my one all would "
    "there their what so up out if about who get which go me when make can like time no just him know take people into "
    "year your good some could them see other than then now look only come its over think also back after use two how"
).split()
ODD = [
    "#",
    "...",
    "—",
    "-",
    "•",
    "&",
    "42",
    "x",
    "…",
    "http://a.b/c",
    "internationalisation",
    "[1]",
    "{x}",
    "lorem ipsum",
]
ODD += ["javascript", "use cookies", "naïve", "日本語", "don't", "(see", "below)", "privacy policy", "w" * 1200]


def words_of(text: str, language: object = None) -> list[str]:
    return text.split()


def sentences_of(text: str, language: object = None) -> list[str]:
    return ["x"] * n_sentences(text)


def random_text(draw: random.Random) -> str:
    """Lines, bullets and paragraphs; some prose, some lists, some that repeat themselves."""
    odd, repeats = draw.choice([0, 0.02, 0.3]), draw.choice([0, 0, 0.2, 0.6])
    lines: list[str] = []
    for _ in range(draw.randint(1, draw.choice([3, 40]))):
        if lines and draw.random() < repeats:
            lines.append(draw.choice(lines))
            continue
        words = draw.choices(SEED_WORDS, k=draw.randint(0, draw.choice([4, 30])))
        words = [draw.choice(ODD) if draw.random() < odd else word for word in words]
        if repeats and len(words) > 6 and draw.random() < 0.5:
            words += words[: draw.randint(2, 12)] * draw.randint(1, 4)
        bullet = draw.choice(["", "", "", "- ", "  •"]) if words else ""  # alone, • is a word to datatrove only
        lines.append(bullet + " ".join(words) + draw.choice([".", "", ".", "!", "...", '"', "…"]))
    return "".join(line + draw.choice(["\n", "\n", "\n\n", " \n", "\r\n", "\x0b"]) for line in lines) + draw.choice(
        ["", "End."]
    )


def check(name: str, text: str, **values: object) -> Document | str:
    rule = next(rule for rule in RULES if rule.name == name)
    document = Document(text, "d", "s")
    return rule.check(document, Words(text), rule_options(name, values), StageReport(name))


@pytest.fixture(scope="module")
def datatrove():
    """datatrove's filters by the names of ours, with our words and sentences."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    kinds = (GopherQualityFilter, GopherRepetitionFilter, C4QualityFilter, FineWebQualityFilter)
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            module = sys.modules[kind.__module__]
            for attribute, own in (("split_into_words", words_of), ("split_into_sentences", sentences_of)):
                if hasattr(module, attribute):
                    patch.setattr(module, attribute, own)
        yield dict(
            zip(("gopher_quality", "gopher_repetition", "c4", "fineweb"), (kind() for kind in kinds), strict=True)
        )


REASONS = {
    "gopher_short_doc": "few words",
    "gopher_long_doc": "many words",
    "gopher_below_avg_threshold": "short words",
    "gopher_above_avg_threshold": "long words",
    "gopher_too_many_hashes": "many hashes",
    "gopher_too_many_ellipsis": "many ellipses",
    "gopher_too_many_bullets": "bullet lines",
    "gopher_too_many_end_ellipsis": "ellipsis lines",
    "gopher_below_alpha_threshold": "few words with letters",
    "gopher_enough_stop_words": "few stop words",
    "dup_para_frac": "duplicate paragraphs",
    "dup_para_char_frac": "characters in duplicate paragraphs",
    "dup_line_frac": "duplicate lines",
    "dup_line_char_frac": "characters in duplicate lines",
    **{f"top_{n}_gram": f"frequent {n} words" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"duplicate {n} words" for n in range(5, 11)},
    "lorem_ipsum": "lorem ipsum",
    "curly_bracket": "curly bracket",
    "too_few_sentences": "few sentences",
    "empty": "empty",
    "line_punct_ratio": "few lines with punctuation",
    "short_line_ratio": "short lines",
    "char_dup_ratio": "characters in duplicate lines",
    "list_ratio": "many new lines",
}


@pytest.mark.parametrize("name", ["gopher_quality", "gopher_repetition", "c4", "fineweb"])
def test_agrees_with_datatrove(name, datatrove):
    from datatrove.data import Document as Theirs

    draw, kept, reasons = random.Random(name), 0, set()
    for number in range(600):
        text = random_text(draw)
        theirs = Theirs(text=text, id="d")
        answer = datatrove[name].filter(theirs)
        ours = check(name, text)
        if answer is True:
            assert isinstance(ours, Document), (number, ours, text)
            assert ours.text == theirs.text
            kept += 1
        else:
            assert ours == REASONS[answer[1]], (number, text)
            reasons.add(answer[1])
    assert kept > 20, "the rule must let some documents through here"
    assert len(reasons) > 1, "and drop some, for different reasons"
