"""Options are frozen, strict, and say what is wrong with a near match."""

from __future__ import annotations

import pytest
from pydantic import Field

from camelid.errors import OptionError, one_of
from camelid.options import Options


class Oven(Options):
    """Baking."""

    degrees: int = Field(180, ge=0, le=300)
    fan: bool = False
    notes: tuple[str, ...] = ()


def test_an_unknown_option_names_its_nearest():
    with pytest.raises(OptionError, match=r"degree: no such option; did you mean 'degrees'\?"):
        Oven(degree=3)


@pytest.mark.parametrize("value", [-1, 301, "hot", 1.5])
def test_a_value_out_of_range_is_refused_with_the_value(value):
    with pytest.raises(OptionError, match=f"degrees: .*{value}"):
        Oven(degrees=value)


def test_options_cannot_be_changed_in_place():
    with pytest.raises(Exception, match="frozen"):
        Oven().fan = True


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value):
    class Scale(Options):
        factor: float = 1.0

    with pytest.raises(OptionError, match="factor: must be a finite number"):
        Scale(factor=value)


def test_with_makes_a_checked_copy():
    assert Oven(fan=True).with_(degrees=200) == Oven(fan=True, degrees=200)
    with pytest.raises(OptionError):
        Oven().with_(degrees=999)


def test_over_applies_only_what_was_given():
    assert Oven(fan=True).over(Oven(degrees=220, notes=("crisp",))) == Oven(degrees=220, fan=True, notes=("crisp",))


def test_one_of_lists_all_when_nothing_is_near():
    assert one_of("zzz", ["b", "a"]) == "choose a or b"
