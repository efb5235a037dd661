"""Checks of single settings: a function from a value to its fault in words, or None."""

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], str | None]


def whole(least: int) -> Check:
    """A whole number of at least `least`; True and False are none."""

    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return None if good else f"expected a whole number of at least {least}"

    return check


def number(above: float, at_most: float = float("inf"), *, or_equal: bool = False) -> Check:
    """A number in (above, at_most], or in [above, at_most] with `or_equal`; True and False are none."""

    def check(value: Any) -> str | None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and (value > above or (or_equal and value == above)) and value <= at_most
        upper = "" if at_most == float("inf") else f" and at most {at_most:g}"
        return None if good else f"expected a number {'of at least' if or_equal else 'above'} {above:g}{upper}"

    return check


def interval(above: float = float("-inf"), at_most: float = float("inf")) -> Check:
    """Two numbers (low, high) with above < low <= high <= at_most."""

    def check(value: Any) -> str | None:
        good = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
        good = good and above < value[0] <= value[1] <= at_most
        lower = "" if above == float("-inf") else f"{above:g} < "
        upper = "" if at_most == float("inf") else f" <= {at_most:g}"
        return None if good else f"expected (low, high) with {lower}low <= high{upper}"

    return check


def one_of(*choices: Any) -> Check:
    """One of a few values."""
    return lambda value: None if value in choices else f"expected one of {', '.join(map(repr, choices))}"


def flag(value: Any) -> str | None:
    """True or False."""
    return None if isinstance(value, bool) else "expected True or False"
