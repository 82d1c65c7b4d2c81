"""Added tokens in a text, found as the `tokenizers` library finds them, with their four rules.

The library looks twice: for tokens that are not `normalized` in the text as it is, then, in what is left, after the
normaliser, for those that are (spelled as the normaliser spells them). The longest of those that begin first wins, and
what does not stand alone although its rule says so is passed over whole. This is the order of its AddedVocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tokenizers.pre_tokenizers import Whitespace

from camelid.errors import OptionError
from camelid.tokens.spans import Spans, within
from camelid.tokens.vocabulary import CONTROL, UNKNOWN, USER, Vocabulary

# Unicode's White_Space, which is what `\s` is to the library; Python's has four separators more.
_SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}
_WORDS = Whitespace()  # it cuts by the library's own `\w`


@dataclass(frozen=True)
class Chunk:
    """Normalised text between added tokens.

    Attributes:
        text: never empty.
        prefix: SentencePiece's space belongs before it, if the vocabulary has one.
    """

    text: str
    prefix: bool


class AddedTokens:
    """What cuts a text at added tokens.

    Args:
        vocabulary: whose tokens they are.
        normalize: text, and whether SentencePiece's space belongs before it, to normalised text.
    """

    def __init__(self, vocabulary: Vocabulary, normalize: Callable[[str, bool], str]) -> None:
        types, pieces = vocabulary.types, vocabulary.pieces
        self._normalize, self._once = normalize, vocabulary.prefix_once
        self._control = {id for id, kind in enumerate(types) if kind in (CONTROL, UNKNOWN)}
        own = [id for id, kind in enumerate(types) if kind == USER]
        users = [id for id in own if id in vocabulary.flags or vocabulary.kind == "bpe"]
        ids = [id for id in (*sorted(self._control), *users) if pieces[id]]
        self._flags = {id: vocabulary.flags.get(id, {}) for id in ids}
        self._raw = _Finder({pieces[id]: id for id in ids if not self._flags[id].get("normalized")})
        normal = [id for id in ids if self._flags[id].get("normalized")]
        self._normal = _Finder({normalize(pieces[id], True): id for id in normal})
        self.in_plain_text = bool(users)

    def cut(
        self, text: str, *, special: bool, prefix: bool = True, mark: str = "", spans: Spans = ()
    ) -> Iterator[tuple[int | Chunk, Spans]]:
        """Ids of added tokens and the chunks between them, in order, and what each has of some spans.

        Args:
            text: as it was written.
            special: control tokens count; otherwise they are ordinary characters.
            prefix: SentencePiece's space belongs before the text.
            mark: a character that breaks what looks like a token and is taken out again; none if empty.
            spans: in characters of the text without marks; they come counted from the beginning of each part.

        Raises:
            OptionError: the normaliser joins characters across a mark or the edge of a span.
        """
        looks = special or self.in_plain_text
        raw, normal = (self._raw, self._normal) if looks else (_NOTHING, _NOTHING)
        for start, end, part in self._found(text, raw, special, mark):
            own = _within(spans, text, start, end, mark) if spans else spans
            if isinstance(part, int):
                yield part, own
                continue
            leads = prefix if start == 0 else not self._once
            moved = self._moved(own, part.replace(mark, "") if mark else part, leads) if own else own
            shown = self._normalized(part, leads, normal, mark)
            for inner, inner_end, piece in self._found(shown, normal, special, mark):
                inside = _within(moved, shown, inner, inner_end, mark) if moved else moved
                if isinstance(piece, int):
                    yield piece, inside
                elif left := piece.replace(mark, "") if mark else piece:
                    yield Chunk(left, leads if inner == 0 else not self._once), inside

    def _moved(self, spans: Spans, text: str, prefix: bool) -> Spans:
        """Spans of a text as spans of the normalised text."""
        normal = self._normalize(text, prefix)

        def place(at: int) -> int:
            if at in (0, len(text)):
                return len(normal) if at else 0
            before = self._normalize(text[:at], prefix)
            if not normal.startswith(before):
                raise OptionError(
                    "mask: this model's normaliser joins characters where an answer begins or ends", param="mask"
                )
            return len(before)

        return [(place(start), place(end)) for start, end in spans]

    def _normalized(self, text: str, prefix: bool, finder: _Finder, mark: str) -> str:
        """Normalised text; marks stay in it where tokens are still looked for."""
        clean = text.replace(mark, "") if mark else text
        normal = self._normalize(clean, prefix)
        if clean == text or finder is _NOTHING or not finder.ids:
            return normal
        marked = self._normalize(text, prefix)
        if marked.replace(mark, "") != normal:
            raise OptionError(
                "messages: this model's normaliser joins what reads like a control token; reword it", param="messages"
            )
        return marked

    def _found(self, text: str, finder: _Finder, special: bool, mark: str) -> Iterator[tuple[int, int, int | str]]:
        """Where each part begins and ends, and the part: an id, or text that holds none."""
        done = 0
        for start, end in finder.find(text):
            id = finder.ids[text[start:end]]
            flags = self._flags[id]
            if not special and id in self._control:
                continue
            if mark and end - start == 1 and text[end : end + 1] == mark:
                continue  # one character cannot be broken inside, so its mark follows it
            if flags.get("single_word") and not _stands_alone(text, start, end, mark):
                continue
            while flags.get("lstrip") and start > done and (text[start - 1] in _SPACES or text[start - 1] == mark):
                start -= 1
            start = max(start, done) if flags.get("lstrip") else start
            while flags.get("rstrip") and end < len(text) and (text[end] in _SPACES or text[end] == mark):
                end += 1
            if done < start:
                yield done, start, text[done:start]
            if start < end:  # else the token before has swallowed it whole
                yield start, end, id
            done = end
        if done < len(text):
            yield done, len(text), text[done:]


class _Finder:
    """What finds the keys of a table in a text, one after another: the first, and of those that begin there the
    longest. Its work does not grow with the number of keys, of which a file may have thousands."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = {text: id for text, id in ids.items() if text}
        lengths: dict[str, set[int]] = {}
        for text in self.ids:
            lengths.setdefault(text[:2], set()).add(len(text))
        self._lengths = {start: sorted(known, reverse=True) for start, known in lengths.items()}
        starts = sorted(lengths, key=len, reverse=True)
        self._start = re.compile("|".join(map(re.escape, starts)) or "(?!)")

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of each."""
        at = 0
        while match := self._start.search(text, at):
            at = match.start()
            lengths = (*self._lengths.get(text[at : at + 2], ()), *self._lengths.get(text[at], ()))
            fitting = (at + length for length in lengths if at + length <= len(text))
            end = next((end for end in fitting if text[at:end] in self.ids), None)
            if end is not None:
                yield at, end
            at = at + 1 if end is None else end


_NOTHING = _Finder({})


def _within(spans: Spans, text: str, start: int, end: int, mark: str) -> Spans:
    """What a part of a text has of some spans; marks in the text do not count."""
    before, inside = (text.count(mark, 0, start), text.count(mark, start, end)) if mark else (0, 0)
    return within(spans, start - before, end - before - inside)


def _stands_alone(text: str, start: int, end: int, mark: str) -> bool:
    """No word ends just before the place, none begins just after it; marks are looked through."""
    while start and text[start - 1] == mark:
        start -= 1
    while end < len(text) and text[end] == mark:
        end += 1
    return not (start and _in_word(text[start - 1])) and not (end < len(text) and _in_word(text[end]))


@lru_cache(maxsize=1 << 14)
def _in_word(character: str) -> bool:
    return [word for word, _ in _WORDS.pre_tokenize_str("a" + character)] == ["a" + character]
