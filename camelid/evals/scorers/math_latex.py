"""Answers to MATH as trees: a parser of the LaTeX that people and models write for values.

    read(r"\\frac12") → ("/", ("num", 1), ("num", 2))       read("(1, 2]") → ("seq", "(]", (…, …))

Trees are tuples. Of values: ("text", word), ("seq", brackets, items), ("union", pieces), ("matrix", rows),
("relation", operators, sides), ("base", digits, base), or an expression: ("num", Fraction), ("sym", name),
("+" | "*", …), ("/" | "^", a, b), ("neg", a), ("fn", name, …). What cannot be read raises `Unreadable`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]
MOST_CHARACTERS = 2000
MOST_DEPTH = 40
"""Of brackets in each other; more is no answer and would only cost stack."""


class Unreadable(ValueError):  # noqa: N818, it is no error of ours
    """A text that is no value this parser knows."""


SPELLINGS = (
    (
        r"\\(?:left|right|displaystyle|limits|big[lr]?|Big[lr]?|bigg[lr]?|text(?:bf|rm|it)?(?=\{\s*\}))(?![a-zA-Z])\.?",
        "",
    ),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\(?:mbox|mathrm|textrm|textbf|textit|mathbf|mathit|operatorname|rm)(?![a-zA-Z])", r"\\text"),
    (r"(?<=\d)(?:,\\!|\{,\}|\\,(?=\d{3}(?!\d)))\s*(?=\d)", ""),
    (r"(?<!\\)\\[!,;:> ]|~|\\q?quad(?![a-zA-Z])", " "),
    (r"\\?%|\\?\$|\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|°", ""),
    (r"[−–]", "-"),
    (r"∞|\binfinity\b|\boo\b", r"\\infty "),
    (r"∪|\bU\b(?=\s*[\[(])", r"\\cup "),
    (r"π", r"\\pi "),
    (r"√", r"\\sqrt "),
    (r"≤|\\leq?(?:slant)?(?![a-zA-Z])|<=", r"\\le "),
    (r"≥|\\geq?(?:slant)?(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\lt(?![a-zA-Z])", "<"),
    (r"\\gt(?![a-zA-Z])", ">"),
    (r"·|×|\\cdot(?![a-zA-Z])|\\times(?![a-zA-Z])|\*\*?", lambda m: "^" if m[0] == "**" else "*"),
    (r"÷|\\div(?![a-zA-Z])", "/"),
    (r",?\s*\\text\s*\{\s*(?:and|or)\s*\}|,?\s+(?:and|or)\s+", ","),
)
UNITS = (
    r"(?:square|cubic|sq\.?|cu\.?)?\s*(?:centimeters?|millimeters?|kilometers?|meters?|inch(?:es)?|feet|foot|ft|yards?|"
    r"miles?|mph|cm|mm|km|hours?|minutes?|seconds?|days?|weeks?|months?|years?|dollars?|cents?|degrees?|radians?|units?|"
    r"ways?|points?|digits?|students?|people|persons?|pounds?|ounces?|grams?|gallons?|liters?|percent|integers?|"
    r"solutions?|numbers?|multiples|edges|meals|girls?|boys?|marbles?|cubes?|square)"
)
UNIT = re.compile(r"(?<=[\d})\]\sa-z])\s*\b(?:" + UNITS + r")\b\.?(?:\s*\^\s*(?:\{\d\}|\d))?", re.IGNORECASE)
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}(?:\s*\^\s*(?:\{\d\}|\d))?")
TOKEN = re.compile(r"\\begin\s*\{\w+\*?\}|\\end\s*\{\w+\*?\}|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\.\d+|\S")
BASE = re.compile(r"(-?(?=[A-Z.]*\d)[0-9A-Z.]+)_\{?(\d{1,2})\}?")
OPEN = ("(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil")
CLOSE = (")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil")
RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\neq": "!=", "\\in": "in"}
FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp"
GREEK = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau phi varphi
chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell
"""
SYMBOLS = frozenset(["pi", "infty", *GREEK.split()])
ATOMS = frozenset(["frac", "sqrt", "binom", "{", "lfloor", "lceil", *FUNCTIONS.split(), *SYMBOLS])


def plain(text: str) -> str:
    """One spelling of what has many: no sizes, units, money, per cent, degrees; `\\frac` for all its kin."""
    text = text.strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\[", "\\]"), ("\\(", "\\)"), ("**", "**")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            text = text[len(opening) : -len(closing)].strip()
    for pattern, spelling in SPELLINGS:
        text = re.sub(pattern, spelling, text)
    text = text.strip().rstrip(".,;:").strip()
    outside = TEXT.sub("", text)
    text = outside if re.search(r"[\w\\]", outside) else TEXT.sub(r"\1", text)
    if re.search(r"\d", text):
        text = UNIT.sub("", text)
    if re.fullmatch(r"-?\s*\d{1,3}(?:,\d{3})+(?:\.\d+)?", text.strip()):
        text = text.replace(",", "")
    return re.sub(r"\s+", " ", text).strip().rstrip(".,;:").strip()


def read(text: str) -> Tree:
    """The tree of a value.

    Raises:
        Unreadable: it is none.
    """
    text = plain(text)
    if not text or len(text) > MOST_CHARACTERS:
        raise Unreadable(text[:80])
    if re.fullmatch(r"\(?[A-Za-z]\)?", text):
        return ("sym", text.strip("()"))
    text = re.sub(r"^\\overline\s*\{([A-Z]+)\}$", r"\1", text)
    words = re.fullmatch(r"[A-Za-z][A-Za-z ,.'()-]*", text) and re.search(r"[A-Za-z]{3}|[A-Z],|^[A-Z]{2}", text)
    if words or re.search(r"^\d+:\d\d [ap]\.?m", text, re.IGNORECASE):
        return ("text", re.sub(r"[^a-z0-9]", "", text.lower()))
    if "\\pm" in text or "\\mp" in text:
        upper, lower = (text.replace("\\pm", one).replace("\\mp", other) for one, other in ("+-", "-+"))
        return ("seq", ",", (read(upper), read(lower)))
    tokens = TOKEN.findall(text)
    _check_brackets(tokens)
    return value(tokens)


def _check_brackets(tokens: Sequence[str]) -> None:
    depth = 0
    for token in tokens:
        depth += (token in OPEN or token.startswith("\\begin")) - (token in CLOSE or token.startswith("\\end"))
        if depth < 0 or depth > MOST_DEPTH:
            raise Unreadable("brackets")
    if depth:
        raise Unreadable("brackets")


def split(tokens: Sequence[str], marks: Sequence[str]) -> tuple[list[Sequence[str]], list[str]]:
    """Pieces between marks that stand in no bracket, and the marks."""
    pieces, found, depth, start = [], [], 0, 0
    for at, token in enumerate(tokens):
        depth += (token in OPEN or token.startswith("\\begin")) - (token in CLOSE or token.startswith("\\end"))
        if depth == 0 and token in marks:
            pieces.append(tokens[start:at])
            found.append(token)
            start = at + 1
    return [*pieces, tokens[start:]], found


def value(tokens: Sequence[str]) -> Tree:
    """A list, union, relation, bracket, matrix or expression."""
    if not tokens:
        raise Unreadable("nothing")
    pieces, commas = split(tokens, (",", ";"))
    if commas:
        return ("seq", ",", tuple(map(value, pieces)))
    pieces, colons = split(tokens, (":",))
    if colons:
        return ("seq", ":", tuple(map(value, pieces)))
    pieces, cups = split(tokens, ("\\cup",))
    if cups:
        return ("union", tuple(map(value, pieces)))
    sides, operators = split(tokens, tuple(RELATIONS))
    if operators:
        return _relation(sides, [RELATIONS[operator] for operator in operators])
    if tokens[0] in ("\\emptyset", "\\varnothing") and len(tokens) == 1:
        return ("seq", "{}", ())
    if tokens[0].startswith("\\begin") and tokens[-1].startswith("\\end"):
        return _matrix(tokens[1:-1])
    if match := BASE.fullmatch("".join(tokens)):
        return ("base", match[1].lstrip("0") or "0", int(match[2]))
    closing = _closing(tokens)
    if closing == len(tokens) - 1 and tokens[0] in OPEN:
        inner, commas = split(tokens[1:-1], (",",))
        brackets = tokens[0].strip("\\") + tokens[-1].strip("\\")
        if brackets == "{}" and tokens[0] == "{":
            return value(tokens[1:-1])
        if commas or brackets == "{}":
            return ("seq", brackets, tuple(map(value, inner)) if any(inner) else ())
    return Expression(tokens).whole()


def _closing(tokens: Sequence[str]) -> int:
    """Where the bracket that the tokens begin with is closed; -1 where they begin with none."""
    depth = 0
    for at, token in enumerate(tokens):
        depth += (token in OPEN) - (token in CLOSE)
        if depth == 0:
            return at if at else -1
    return -1


def _relation(sides: Sequence[Sequence[str]], operators: list[str]) -> Tree:
    if operators == ["in"]:
        return value(sides[1])
    trees = [value(side) for side in sides]
    if all(operator in (">", ">=") for operator in operators):
        operators, trees = [operator.replace(">", "<") for operator in reversed(operators)], trees[::-1]
    return ("relation", tuple(operators), tuple(trees))


def _matrix(tokens: Sequence[str]) -> Tree:
    if tokens and tokens[0] == "{":  # columns of an array
        tokens = tokens[_closing(tokens) + 1 :]
    rows = [row for row in split(tokens, ("\\\\",))[0] if row]
    cells = tuple(tuple(Expression(cell).whole() for cell in split(row, ("&",))[0]) for row in rows)
    if not cells or len({len(row) for row in cells}) > 1:
        raise Unreadable("matrix")
    return ("matrix", cells)


class Expression:
    """Recursive descent over tokens: sums of products of powers, with products that are only written side by side."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens, self.at = list(tokens), 0

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, token: str | None = None) -> str:
        found = self.next
        if not found or (token is not None and found != token):
            raise Unreadable(f"{found or 'the end'} instead of {token}")
        self.at += 1
        return found

    def whole(self) -> Tree:
        tree = self.sum()
        if self.next:
            raise Unreadable(self.next)
        return tree

    def sum(self) -> Tree:
        terms = [self.product()]
        while self.next in ("+", "-"):
            sign = self.take()
            term = self.product()
            terms.append(("neg", term) if sign == "-" else term)
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self) -> Tree:
        if self.next in ("-", "+"):
            sign = self.take()
            factor = self.product()
            return ("neg", factor) if sign == "-" else factor
        tree = self.power()
        while True:
            if self.next in ("*", "/"):
                operator = self.take()
                negative = self.next == "-" and bool(self.take())
                right = self.power()
                right = ("neg", right) if negative else right
                mixed = operator == "/" and _is_mixed(tree, right)
                tree = mixed or (("*", tree, right) if operator == "*" else ("/", tree, right))
            elif self.begins_atom():
                right = self.power()
                mixed_fraction = _is_whole(tree) and right[0] == "/" and _is_whole(right[1]) and _is_whole(right[2])
                tree = ("+" if mixed_fraction else "*", tree, right)
            else:
                return tree

    def begins_atom(self) -> bool:
        token = self.next
        if token.startswith("\\"):
            return token[1:] in ATOMS
        return bool(token) and (token[0].isalnum() or token in ("(", "[", "{") or token[0] == ".")

    def power(self) -> Tree:
        tree = self.atom()
        while self.next in ("^", "!", "_", "'"):
            mark = self.take()
            if mark == "!":
                tree = ("fn", "factorial", tree)
            elif mark == "^":
                tree = ("^", tree, self.argument())
            elif tree[0] == "sym":
                name = self.argument() if mark == "_" else ("sym", "'")
                tree = ("sym", f"{tree[1]}_{name}")
            else:
                raise Unreadable(mark)
        return tree

    def argument(self, *, digit: bool = False) -> Tree:
        """What a command takes: a bracket, or one token; of a number its first digit, if only that is meant."""
        if self.next == "{":
            return self.bracket()
        if self.next == "-":
            self.take()
            return ("neg", self.argument())
        token = self.next
        if digit and token[:1].isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.atom()

    def bracket(self) -> Tree:
        opening = self.take()
        tree = self.sum()
        closing = self.take()
        if closing != CLOSE[OPEN.index(opening)]:
            raise Unreadable(closing)
        name = {"\\lfloor": "floor", "\\lceil": "ceil"}.get(opening)
        return ("fn", name, tree) if name else tree

    def atom(self) -> Tree:
        token = self.next
        if token in OPEN:
            return self.bracket()
        self.take()
        if token[:1].isdigit() or (token[0] == "." and len(token) > 1):
            return self.number(token)
        if len(token) == 1 and token.isalpha():
            return ("sym", token)
        if token == "|":
            tree = self.sum()
            self.take("|")
            return ("fn", "abs", tree)
        return self.command(token.removeprefix("\\")) if token.startswith("\\") else self._unknown(token)

    def number(self, token: str) -> Tree:
        number = Fraction(token)
        if self.next in ("\\overline", "\\bar") and (self.at == 1 or "." in "".join(self.tokens[: self.at])):
            return self.repeating(number, token)
        if self.next == "." and self.tokens[self.at + 1 : self.at + 2] == ["\\overline"]:
            self.take()
            return self.repeating(number, token + ".")
        return ("num", number)

    def repeating(self, number: Fraction, token: str) -> Tree:
        self.take()
        period = "".join(self.tokens[self.at + 1 : self.at + 2])
        self.argument()
        if not period.isdigit():
            raise Unreadable("overline")
        decimals = len(token.partition(".")[2])
        return ("num", number + Fraction(int(period), (10 ** len(period) - 1) * 10**decimals))

    def command(self, name: str) -> Tree:
        if name in ("frac", "binom"):
            over, under = self.argument(digit=True), self.argument(digit=True)
            return ("/", over, under) if name == "frac" else ("fn", "binom", over, under)
        if name == "sqrt":
            if self.next != "[":
                return ("^", self.argument(), ("num", Fraction(1, 2)))
            self.take("[")
            degree = self.sum()
            self.take("]")
            return ("^", self.argument(), ("/", ("num", Fraction(1)), degree))
        if name in FUNCTIONS.split():
            return self.function(name)
        if name in SYMBOLS:
            return ("sym", name)
        return self._unknown(name)

    def function(self, name: str) -> Tree:
        """`\\sin^2 2x`, `\\log_2 8`, `\\ln(3)`."""
        base = power = None
        while self.next in ("^", "_"):
            if self.take() == "_":
                base = self.argument()
            else:
                power = self.argument()
        argument = self.bracket() if self.next in OPEN else self.power()
        while self.begins_atom() and self.next[1:] not in FUNCTIONS.split() and self.next != "(":
            argument = ("*", argument, self.power())
        tree: Tree = ("fn", name, argument) if base is None else ("fn", name, argument, base)
        return tree if power is None else ("^", tree, power)

    def _unknown(self, token: str) -> Tree:
        raise Unreadable(token)


def _is_whole(tree: Tree) -> bool:
    return tree[0] == "num" and tree[1].denominator == 1


def _is_mixed(left: Tree, right: Tree) -> Tree | None:
    """`2 1/2`: two and a half, where a product of two numbers side by side stands above a number."""
    if left[0] == "*" and len(left) == 3 and all(map(_is_whole, (*left[1:], right))):
        return ("+", left[1], ("/", left[2], right))
    return None
