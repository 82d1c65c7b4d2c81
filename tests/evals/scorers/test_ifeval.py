"""IFEval's checkers: each by a text that follows and one that does not, and against another implementation."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.errors import FormatError
from camelid.evals.scorers import ifeval, ifeval_text

AT_LEAST = {"relation": "at least"}
CAPITALS = {"capital_frequency": 3, "capital_relation": "at least"}
EXAMPLES = [
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "A Dog and a CAT", "A dog"),
    ("keywords:frequency", {"keyword": " cat ", "frequency": 2, **AT_LEAST}, "cat, Cats", "cat"),
    ("keywords:frequency", {"keyword": "c[", "frequency": 1, **AT_LEAST}, "C[ it is", "cc"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", "The Cat."),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": "at least"}, "qQ", "q"),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "##", "#"),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "Dr. Smith came.",
        "One. Two.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***\n", "a *** *** b"),
    ("length_constraints:number_words", {"num_words": 3, **AT_LEAST}, "it's me", "well-known"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Well"},
        "a\n\n'\"well, b",
        "a\n\nb well",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a\n] [b]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. p. s. one", "Bye. PS one"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P. P.S more", "P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n** b"),
    ("detectable_format:constrained_response", {}, "So: My answer is no. Really", "My answer: no."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and ** **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1 a Section 2 b",
        "SECTION 1 SECTION 2",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<a poem>>", "<< >>"),
    ("combination:two_responses", {}, "******\na\n******\nb", "a ****** a"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, " say IT. well", "I say it"),
    ("startend:end_checker", {"end_phrase": " The end. "}, '"… the END."', "the end. Bye"),
    ("startend:quotation", {}, ' "a" ', '"'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 3, "capital_relation": "at least"},
        "DON'T GO",
        "I go",
    ),
    ("punctuation:no_comma", {}, "no; none", "one, two"),
]


@pytest.mark.parametrize(("name", "arguments", "follows", "does_not"), EXAMPLES)
def test_one_text_that_follows_and_one_that_does_not(name, arguments, follows, does_not):
    assert ifeval.check(name, follows, arguments) is True
    assert ifeval.check(name, does_not, arguments) is False
    assert ifeval.check(name, " \n", arguments) is False, "an empty answer follows nothing"


def test_all_25_are_there():
    assert len(ifeval.CHECKERS) == 25
    languages = {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}
    assert {name for name, *_ in EXAMPLES} | languages == set(ifeval.CHECKERS)


def test_languages():
    pytest.importorskip("langdetect")
    german = "Die Sonne scheint heute über den Bergen, und alle Kinder spielen draußen."
    english = "The sun shines over the mountains today and all children play outside."
    for text, code in ((german, "de"), (english, "en")):
        assert ifeval.check("language:response_language", text, {"language": code}) is True
        assert ifeval.check("language:response_language", text, {"language": "fr"}) is False
    assert ifeval.check("change_case:english_capital", english.upper(), {}) is True
    assert ifeval.check("change_case:english_lowercase", german.lower(), {}) is False
    assert ifeval.check("language:response_language", "123", {"language": "fr"}) is True, "as the original: no letters"


def test_without_langdetect_nobody_can_say(monkeypatch):
    monkeypatch.setattr(ifeval_text, "_detectors", lambda: None)
    assert ifeval.check("language:response_language", "Guten Tag", {"language": "de"}) is None
    assert ifeval.check("change_case:english_capital", "Hello", {}) is False, "that much is sure"
    both = ifeval.followed("HELLO", ["change_case:english_capital", "punctuation:no_comma"], [{}, {}])
    assert (both.strict, both.all()) == ((None, True), None)
    assert ifeval.followed("A, B", ["change_case:english_capital", "punctuation:no_comma"], [{}, {}]).all() is False


def test_loose_forgives_a_first_line_a_last_line_and_asterisks():
    end = ("startend:end_checker", {"end_phrase": "the end."})
    for text in ("The end.\nHope that helps!", "*The end.*"):
        verdict = ifeval.followed(text, [end[0]], [end[1]])
        assert (verdict.all(), verdict.all(loose=True)) == (False, True)
    verdict = ifeval.followed("Sure!\n{}\nDone.", ["detectable_format:json_format"], [{}])
    assert (verdict.all(), verdict.all(loose=True)) == (False, True)


def test_mistakes_of_a_row_are_errors():
    with pytest.raises(FormatError, match="did you mean 'punctuation:no_comma'"):
        ifeval.check("punctuation:no_commas", "a", {})
    with pytest.raises(FormatError, match="'num_words' lacks"):
        ifeval.check("length_constraints:number_words", "a", {"relation": "at least"})
    with pytest.raises(FormatError, match="choose 'less than'"):
        ifeval.check("length_constraints:number_words", "a", {"relation": "most", "num_words": 1})
    with pytest.raises(FormatError, match="kwargs of 0"):
        ifeval.followed("a", ["punctuation:no_comma"], [])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("No mark", 1),
        ("One. Two! Three?", 3),
        ("Mr. Smith, e.g., met J. K. Rowling in the U.S. on Jan. 5.", 1),
        ("It costs $3.50 today. He left.", 2),
        ("1. First point. 2. Second point.", 4),
        ('He said "Go." Then he left.', 2),
        ("Wait... what? Well...", 2),
        ("He lives in the U.S. The end.", 2),
    ],
)
def test_sentences(text, count):
    assert ifeval_text.count_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("I CAN'T", 3), ("CANNOT", 2), ("Cannot", 0), ("AND/OR WELL-KNOWN a NASA's A1", 4)]
)
def test_words_in_capitals(text, count):
    assert ifeval_text.count_capital_words(text) == count


PIECES = (
    'Section 1|***|******|* item|- item|<<title>>|<< >>|[name]|P.S. x|P. P. S y|My answer is yes.|"|{}|```json|```|HI|'
)
PIECES += "DON'T|WORLD|word, comma|*hi*|**bold**|\n\n|\n|the End.|Is it? Yes!|Dr. No|c++|A.B. C|banana|CANNOT|U.S. The"


@given(st.lists(st.sampled_from(PIECES.split("|")), max_size=12).map(" ".join), st.randoms())
def test_they_agree_with_if_verifiable(text, random_source: random.Random):
    registry = pytest.importorskip("if_verifiable.ifeval.instructions_registry")
    name, arguments, *_ = random_source.choice(
        [
            row
            for row in EXAMPLES
            if "sentences" not in row[0] and "capital_word" not in row[0] and "+" not in str(row[1])
        ]
    )
    if arguments.get("letter") == "#":
        return  # the original draws a letter
    theirs = registry.INSTRUCTION_DICT[name](name)
    theirs.build_description(**arguments)
    try:
        follows = bool(text.strip() and theirs.check_following(text))
    except re.error:
        return  # the original takes keywords and text for regular expressions
    assert ifeval.check(name, text, arguments) == follows


@given(st.text())
def test_no_text_breaks_a_checker(text):
    for name, arguments, *_ in EXAMPLES:
        ifeval.check(name, text, arguments)


def test_deep_nesting_is_no_json():
    assert ifeval.check("detectable_format:json_format", "[" * 100_000, {}) is False
