"""What IFEval's checkers count in a text: sentences, words in capitals; and which language it is in.

The original counts with NLTK's Punkt and Treebank tokenizers and downloads their data. Here are plain rules instead;
`docs/decisions/answers.md` says how often the counts agree.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import Any

# Words that a full stop follows inside a sentence.
ABBREVIATIONS = """
mr mrs ms messrs dr prof rev gov sen rep gen col lt maj sgt capt cmdr adm hon st ste mt ft jr sr inc ltd corp co cos
bros assn dept vs v cf viz al ca approx est no nos vol pp fig eq sec ch ed eds jan feb mar apr jun jul aug sept sep oct
nov dec mon tue tues wed thu thurs fri ala ariz ark calif colo conn del fla ga ill ind kan ky la md mass mich minn miss
mo mont neb nev okla ore pa tenn tex va vt wash wis wyo e.g i.e a.m p.m u.s u.k u.n u.s.a d.c n.y n.j n.c s.c l.a a.d
b.c ph.d m.d b.a m.a ave blvd rd hwy
"""
# Words that begin a sentence more often than they are names: behind an abbreviation they end it.
STARTERS = """
the a an this that these those he she it they we you i his her its our their your my there here in on at by for from
with to of as if when while after before but and so or however although because since where what who why how some many
most all no not one another each every both other such under over during until among according nevertheless meanwhile
moreover separately
"""
CLOSERS = "\"')\\]}‘’“”«»"
END_OF_SENTENCE = re.compile(rf"(?P<mark>[.?!]+)(?P<closing>[{CLOSERS}*]*)(?:\s+(?=(?P<next>\S+)))?")

TOKEN_ENDS = re.compile(r"[\s\[\](){}<>;@#$%&?!*\"“”‘’«»‒–—―]+|''|``|--|\.{2,}|[:,](?!\d)")
CLITIC = re.compile(r"(?<=[^' ])(n't|N'T|'(?:[sSmMdD]|ll|LL|re|RE|ve|VE))(?=\s|$)")
RUN_TOGETHER = re.compile(
    r"\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|wan(?=na\b)|d(?='ye\b))", re.I
)


def count_sentences(text: str) -> int:
    """How many sentences a text has: one ends with a mark, what closes, white space, and a word that may begin one."""
    text = text.strip()
    return 1 + sum(_ends(text, match) for match in END_OF_SENTENCE.finditer(text)) if text else 0


def _ends(text: str, match: re.Match[str]) -> bool:
    """Whether a sentence ends at a mark that others follow."""
    following = match["next"]
    if following is None:
        return bool(match["closing"]) and match.end() < len(text)
    if match["mark"][-1] != ".":
        return True
    start = max(text.rfind(space, 0, match.start()) for space in " \n\t") + 1
    word = text[start : match.start()].lstrip(CLOSERS + "([{*#-`_").lower()
    first = following.lstrip(CLOSERS + "([{*#-`_")
    next_word = re.match(r"[\w'’-]*", first)
    starter = first[:1].isupper() and next_word is not None and next_word[0].lower() in STARTERS.split()
    if len(match["mark"]) > 1 or word.rsplit("-", 1)[-1] in ABBREVIATIONS.split():
        return starter
    if len(word) == 1 and word.isalpha():
        return starter and word != "i"
    if re.fullmatch(r"[$]?\d[\d.,-]*", word):
        return not first[:1].islower()
    return True


def count_capital_words(text: str) -> int:
    """Tokens without a small letter and with a capital one, as the Treebank tokenizer cuts them: DON'T is two."""
    words = (word for piece in TOKEN_ENDS.split(text) if piece for word in CLITIC.sub(r" \1", piece).split())
    return sum(token.isupper() for word in words for token in RUN_TOGETHER.sub(r" \1 ", word).split())


def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language, as `langdetect` (seed 0) sees it; "" where a text has no letters to tell by.

    None where `langdetect` is not installed: then nobody can say.
    """
    factory = _detectors()
    if factory is None:
        return None
    from langdetect import LangDetectException

    detector = factory.create()
    try:
        detector.append(text)
        return detector.detect()
    except LangDetectException:
        return ""


@functools.cache
def _detectors() -> Any:
    """Makes detectors that give the same answer each time; the package's own are seeded by the clock."""
    try:
        from langdetect.detector_factory import DetectorFactory
    except ImportError:
        return None
    profiles = sorted((files("langdetect") / "profiles").iterdir(), key=lambda file: file.name)
    factory = DetectorFactory()
    factory.load_json_profile([file.read_text(encoding="utf-8") for file in profiles])
    factory.set_seed(0)
    return factory
