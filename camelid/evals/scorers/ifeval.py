"""Whether an answer follows instructions that a program can check: IFEval (Zhou et al. 2023, arXiv 2311.07911).

The checkers say what Google's say, also where that is odd; they were written anew and are compared with theirs.
Differences, on purpose:

- a parameter that lacks is an error; the original draws one at random, also for a letter that is none (`#`, `!`): here
  that sign is counted;
- a text whose language nobody can tell without the package `langdetect` is unparsable, not right;
- sentences are counted by `ifeval_text`, not by NLTK's Punkt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camelid.errors import FormatError, one_of
from camelid.evals.scorers.ifeval_text import count_capital_words, count_sentences, language_of

Arguments = Mapping[str, Any]
Checker = Callable[[str, Arguments], "bool | None"]

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def check(instruction: str, text: str, arguments: Arguments) -> bool | None:
    """Whether a text follows one instruction; an empty one follows none; None where nobody can say.

    Args:
        instruction: one of `CHECKERS`, such as `length_constraints:number_words`.
        arguments: of the data set's `kwargs`; those that are None are ignored.

    Raises:
        FormatError: an unknown instruction, or an argument lacks.
    """
    checker = CHECKERS.get(instruction)
    if checker is None:
        raise FormatError(f"IFEval instruction {instruction!r}: unknown; {one_of(instruction, CHECKERS)}")
    try:
        return checker(text, arguments) if text.strip() else False
    except KeyError as error:
        raise FormatError(f"IFEval instruction {instruction}: its argument {error} lacks") from None


@dataclass(frozen=True)
class Followed:
    """Which instructions of a prompt an answer follows, in their order.

    Attributes:
        strict: by the answer as it is.
        loose: by the answer, or without its first or last line, or without asterisks.
    """

    strict: tuple[bool | None, ...]
    loose: tuple[bool | None, ...]

    def all(self, *, loose: bool = False) -> bool | None:
        """The verdict on the whole prompt: False where one is not followed, else None where one is unknown."""
        verdicts = self.loose if loose else self.strict
        return False if False in verdicts else None if None in verdicts else True


def followed(text: str, instructions: Sequence[str], arguments: Sequence[Arguments]) -> Followed:
    """Strict and loose verdicts on each instruction of a prompt.

    Raises:
        FormatError: see `check`; or the lists are not as long as each other.
    """
    if len(instructions) != len(arguments):
        raise FormatError(f"IFEval item: {len(instructions)} instructions, but kwargs of {len(arguments)}")
    pairs = list(zip(instructions, arguments, strict=True))
    strict = tuple(check(name, text, given) for name, given in pairs)
    texts = loose_texts(text)
    loose = tuple(any_of([check(name, variant, given) for variant in texts]) for name, given in pairs)
    return Followed(strict, loose)


def any_of(verdicts: Sequence[bool | None]) -> bool | None:
    """True if one is, else None if one is unknown."""
    return True if True in verdicts else None if None in verdicts else False


def loose_texts(text: str) -> list[str]:
    """The eight texts of which one must do: without the first line, the last, both; each also without asterisks."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(variant.replace("*", "") for variant in cut)]


def given_arguments(arguments: Arguments) -> dict[str, Any]:
    """Arguments of a row without those that are None, as data sets fill them up."""
    return {name: value for name, value in arguments.items() if value is not None}


def compared(count: int, relation: str, bound: int) -> bool:
    """`count` in the relation `less than` or `at least` to `bound`."""
    if relation not in ("less than", "at least"):
        raise FormatError(f"IFEval relation {relation!r}: choose 'less than' or 'at least'")
    return count < bound if relation == "less than" else count >= bound


def found(pattern: str, text: str) -> list[str]:
    """Matches of a word of the data set: a regular expression, as the original has it, else the word itself."""
    try:
        return re.findall(pattern, text, flags=re.IGNORECASE)
    except re.error:
        return re.findall(re.escape(pattern), text, flags=re.IGNORECASE)


def keywords_exist(text: str, given: Arguments) -> bool:
    return all(found(word, text) for word in given["keywords"])


def keyword_frequency(text: str, given: Arguments) -> bool:
    return compared(len(found(given["keyword"].strip(), text)), given["relation"], given["frequency"])


def forbidden_words(text: str, given: Arguments) -> bool:
    return not any(found(rf"\b{word}\b", text) for word in given["forbidden_words"])


def letter_frequency(text: str, given: Arguments) -> bool:
    return compared(text.lower().count(given["letter"].lower()), given["let_relation"], given["let_frequency"])


def response_language(text: str, given: Arguments) -> bool | None:
    language = language_of(text)
    return None if language is None else language in ("", given["language"])


def number_sentences(text: str, given: Arguments) -> bool:
    return compared(count_sentences(text), given["relation"], given["num_sentences"])


def number_paragraphs(text: str, given: Arguments) -> bool:
    """Paragraphs between `***`; an empty one may only stand first or last."""
    paragraphs = re.split(r"\s?\*\*\*\s?", text)
    n_inner_empty = sum(not paragraph.strip() for paragraph in paragraphs[1:-1])
    n_filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    return not n_inner_empty and n_filled == given["num_paragraphs"]


def number_words(text: str, given: Arguments) -> bool:
    return compared(len(re.findall(r"\w+", text)), given["relation"], given["num_words"])


def nth_paragraph_first_word(text: str, given: Arguments) -> bool:
    """Paragraphs between empty lines; the n-th of all, empty ones too, begins with a word."""
    paragraphs = text.split("\n\n")
    n_filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    nth = given["nth_paragraph"]
    words = paragraphs[nth - 1].split() if nth <= n_filled else []
    if not words:
        return False
    first = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0]
    return n_filled == given["num_paragraphs"] and first.lower() == given["first_word"].lower()


def number_placeholders(text: str, given: Arguments) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= given["num_placeholders"]


def postscript(text: str, given: Arguments) -> bool:
    marker = given["postscript_marker"].strip()
    spaced = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(spaced.get(marker, marker.lower()), text.lower()) is not None


def number_bullet_lists(text: str, given: Arguments) -> bool:
    bullets = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE) + re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(bullets) == given["num_bullets"]


def constrained_response(text: str, given: Arguments) -> bool:
    return any(option in text for option in OPTIONS)


def number_highlighted_sections(text: str, given: Arguments) -> bool:
    spans = re.findall(r"\*([^\n\*]*)\*", text) + re.findall(r"\*\*([^\n\*]*)\*\*", text)
    return sum(bool(span.strip()) for span in spans) >= given["num_highlights"]


def multiple_sections(text: str, given: Arguments) -> bool:
    return len(found_sections(given["section_spliter"].strip(), text)) >= given["num_sections"]


def found_sections(splitter: str, text: str) -> list[str]:
    """Section marks with their number, in the case that is asked for."""
    return re.findall(rf"\s?{splitter}\s?\d+\s?", text)


def json_format(text: str, given: Arguments) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str, given: Arguments) -> bool:
    return any(span.lstrip("<").rstrip(">").strip() for span in re.findall(r"<<[^\n]+>>", text))


def two_responses(text: str, given: Arguments) -> bool:
    """Two different answers between six asterisks; an empty part may only stand first or last."""
    parts = [part.strip() for part in text.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(text: str, given: Arguments) -> bool:
    return text.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())


def end_checker(text: str, given: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())


def capital_word_frequency(text: str, given: Arguments) -> bool:
    return compared(count_capital_words(text), given["capital_relation"], given["capital_frequency"])


def english_capital(text: str, given: Arguments) -> bool | None:
    return response_language(text, {"language": "en"}) if text.isupper() else False


def english_lowercase(text: str, given: Arguments) -> bool | None:
    return response_language(text, {"language": "en"}) if text.islower() else False


def no_comma(text: str, given: Arguments) -> bool:
    return "," not in text


def quotation(text: str, given: Arguments) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKERS: dict[str, Checker] = {
    "keywords:existence": keywords_exist,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
