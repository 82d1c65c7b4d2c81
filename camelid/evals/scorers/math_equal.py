"""Whether two values of `math_latex` are equal: numbers to 40 digits, expressions at several points, the rest by parts.

Nothing is simplified, so nothing can run away but a power; those are bounded. Needs mpmath, which comes with SymPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from camelid.evals.scorers.math_latex import Tree, Unreadable

DIGITS = 60
CLOSE = 1e-40  # relative
MOST_POWER = 100_000
MOST_FACTORIAL = 100_000
POINTS = ((17, 29), (-41, 23), (5, 31), (-7, 37))  # over and under: values of the first variable; others follow them


def equal(a: Tree, b: Tree) -> bool:
    """Whether two values are one.

    Lists and sets compare without order; points, intervals and matrices with it. `x = 3` is 3, and an equation is any
    multiple of itself.

    Raises:
        Unreadable: they cannot be evaluated.
    """
    a, b = _bare(a, b), _bare(b, a)
    kinds = {a[0], b[0]}
    if kinds <= {"seq", "union"}:
        return _equal_parts(a, b)
    if kinds & {"seq", "union", "text"}:
        return a == b
    if kinds & {"base", "matrix", "relation"}:
        if len(kinds) > 1:
            return False
        return a == b if a[0] == "base" else _equal_rows(a, b) if a[0] == "matrix" else _equal_relations(a, b)
    return equal_expressions(a, b)


def _bare(a: Tree, other: Tree) -> Tree:
    """The right side of `x = 3` where it is compared with what is no relation."""
    if a[0] == "relation" and other[0] != "relation" and a[1] == ("=",) and a[2][0][0] in ("sym", "*"):
        return a[2][1]
    return a


def _equal_parts(a: Tree, b: Tree) -> bool:
    if a[0] != b[0]:
        return False
    mine, others = a[-1], list(b[-1])
    if len(mine) != len(others):
        return False
    unordered = a[0] == "union" or {a[1], b[1]} <= {",", "{}"}
    if not unordered:
        return a[1] == b[1] and all(equal(one, other) for one, other in zip(mine, others, strict=True))
    for one in mine:
        found = next((at for at, other in enumerate(others) if equal(one, other)), None)
        if found is None:
            return False
        others.pop(found)
    return True


def _equal_rows(a: Tree, b: Tree) -> bool:
    shapes = [[len(row) for row in tree[1]] for tree in (a, b)]
    pairs = zip((cell for row in a[1] for cell in row), (cell for row in b[1] for cell in row), strict=False)
    return shapes[0] == shapes[1] and all(equal_expressions(one, other) for one, other in pairs)


def _equal_relations(a: Tree, b: Tree) -> bool:
    if a[1] != b[1]:
        return False
    if all(equal(one, other) for one, other in zip(a[2], b[2], strict=True)):
        return True
    if a[1] != ("=",):
        return False
    left, right = (("+", tree[2][0], ("neg", tree[2][1])) for tree in (a, b))
    values = [(x, y) for x, y in _values(left, right) if abs(y) > CLOSE]
    return len(values) > 1 and all(_close(x / y, values[0][0] / values[0][1]) for x, y in values) and values[0][0] != 0


def equal_expressions(a: Tree, b: Tree) -> bool:
    """Whether two expressions have the same value at several values of their variables.

    Raises:
        Unreadable: nowhere both can be evaluated.
    """
    values = _values(a, b)
    if not values:
        raise Unreadable("cannot be evaluated")
    return all(_close(x, y) for x, y in values)


def _close(x: Any, y: Any) -> bool:
    import mpmath

    if x == y:
        return True
    if not (mpmath.isfinite(x) and mpmath.isfinite(y)):
        return False
    return bool(abs(x - y) <= CLOSE * max(abs(x), abs(y)))


def _values(a: Tree, b: Tree) -> list[tuple[Any, Any]]:
    """Values of both at each point where both have one."""
    import mpmath

    names = sorted(_names(a) | _names(b))
    found = []
    with mpmath.workdps(DIGITS):
        for over, under in POINTS if names else POINTS[:1]:
            given = {name: mpmath.mpf(over + 3 * at) / (under + 2 * at * at) for at, name in enumerate(names)}
            try:
                found.append((evaluate(a, given), evaluate(b, given)))
            except (ZeroDivisionError, ArithmeticError, ValueError) as error:
                if isinstance(error, Unreadable):
                    raise
    return found


def _names(tree: Tree) -> set[str]:
    if tree[0] == "sym":
        return set() if tree[1] in ("pi", "e", "i", "infty") else {tree[1]}
    return {name for part in tree[1:] if isinstance(part, tuple) for name in _names(part)}


def evaluate(tree: Tree, given: Mapping[str, Any]) -> Any:
    """The value of an expression, an mpmath number, where its variables have these values."""
    import mpmath

    kind, *parts = tree
    if kind == "num":
        number: Fraction = parts[0]
        return mpmath.mpf(number.numerator) / number.denominator
    if kind == "sym":
        constants = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1), "infty": mpmath.inf}
        return +constants[parts[0]] if parts[0] in constants else given[parts[0]]
    if kind == "fn":
        return _function(parts[0], [evaluate(part, given) for part in parts[1:]])
    if kind not in ("+", "*", "/", "^", "neg"):
        raise Unreadable(kind)
    values = [evaluate(part, given) for part in parts]
    if kind == "+":
        return mpmath.fsum(values)
    if kind == "neg":
        return -values[0]
    if kind == "^":
        return _power(*values)
    return mpmath.fprod(values) if kind == "*" else values[0] / values[1]


def _power(base: Any, exponent: Any) -> Any:
    import mpmath

    if abs(exponent) > MOST_POWER:
        raise Unreadable("a power that is too large")
    if mpmath.im(base) == 0 and mpmath.re(base) < 0 and mpmath.im(exponent) == 0:
        root = 1 / exponent
        nearest = mpmath.nint(root)
        if abs(root - nearest) < CLOSE and int(nearest) % 2:  # the real one of an odd root
            return -mpmath.power(-base, exponent)
    return mpmath.power(base, exponent)


def _function(name: str, values: Sequence[Any]) -> Any:
    import mpmath

    first = values[0]
    if name in ("factorial", "binom"):
        if any(abs(value) > MOST_FACTORIAL for value in values):
            raise Unreadable("a factorial that is too large")
        return mpmath.factorial(first) if name == "factorial" else mpmath.binomial(*values)
    if name in ("log", "ln"):
        return mpmath.log(*values)
    if name == "exp" and abs(first) > MOST_POWER:
        raise Unreadable("a power that is too large")
    own = {"abs": abs, "arcsin": mpmath.asin, "arccos": mpmath.acos, "arctan": mpmath.atan}
    return own[name](first) if name in own else getattr(mpmath, name)(first)
