"""Checks of single settings, a function from a value to its fault in words or None; and numbers read from text."""

import functools
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from core.runtime.errors import UserError

Check = Callable[[Any], str | None]
# Python's float and int take more than any table means: 1_000, the digits of all scripts, nan.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MOST_DIGITS = 300  # of a whole number
FLOAT16_EXPONENT = 0x7C00  # all bits of the exponent: infinity or not a number


def whole(least: int, at_most: float = float("inf")) -> Check:
    """A whole number from `least` to `at_most`; True and False are none."""

    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= at_most
        upper = "" if at_most == float("inf") else f" and at most {at_most}"
        return None if good else f"expected a whole number of at least {least}{upper}"

    return check


def number(above: float, at_most: float = float("inf"), *, or_equal: bool = False) -> Check:
    """A finite number in (above, at_most], or in [above, at_most] with `or_equal`; True and False are none."""

    def check(value: Any) -> str | None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        finite = not good or abs(value) <= sys.float_info.max  # math.isfinite raises for great whole numbers
        good = good and finite and (value > above or (or_equal and value == above)) and value <= at_most
        upper = "" if at_most == float("inf") else f" and at most {at_most:g}"
        kind = "a number" if finite else "a finite number"
        return None if good else f"expected {kind} {'of at least' if or_equal else 'above'} {above:g}{upper}"

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
    """One of a few values, of the same type: neither 1.0 nor True is 1."""

    def check(value: Any) -> str | None:
        good = any(type(value) is type(choice) and value == choice for choice in choices)
        return None if good else f"expected one of {', '.join(map(repr, choices))}"

    return check


def flag(value: Any) -> str | None:
    """True or False."""
    return None if isinstance(value, bool) else "expected True or False"


def is_file_name(value: Any) -> bool:
    """Whether a value is the name of a file or folder, and no path to one."""
    return isinstance(value, str) and value == Path(value).name and value not in ("", "..") and "\0" not in value


def as_number(text: str) -> float:
    """The finite number that a text is in ASCII digits, spaces around it aside.

    Raises:
        ValueError: it is none.
    """
    value = float(text) if NUMBER.fullmatch(text.strip()) else float("nan")
    if abs(value) <= sys.float_info.max:
        return value
    raise ValueError(f"{text[:40]!r} is no finite number")


def as_whole(text: str) -> int:
    """The whole number that a text is in ASCII digits, spaces around it aside.

    Raises:
        ValueError: it is none.
    """
    if text.isascii() and "_" not in text and len(text) <= MOST_DIGITS:
        return int(text)
    raise ValueError(f"{text[:40]!r} is no whole number")


def as_path(text: str) -> Path:
    """The path of a file or folder of this machine that an argument names.

    Raises:
        UserError: it is a URL.
    """
    if "://" in text:
        raise UserError(f"{text}: expected a path of this machine; docs/cluster.md says which arguments may be URLs")
    return Path(text)


def as_stream(text: str) -> int | str:
    """The audio stream that an option names: its number, or "all".

    Raises:
        UserError: it is neither.
    """
    if text != "all" and not text.isdecimal():
        raise UserError(f"--audio-stream {text}: expected the number of an audio stream, from 0, or all")
    return text if text == "all" else as_whole(text)


def name_of(value: Any, home: ModuleType | None, names: Iterable[str]) -> Any:
    """The name among `names` that stands in a module for an object; the object itself where none does.

    A name stands for what it names, and for an object of that class with its default options.
    """
    for name in names:
        meant = getattr(home, name)
        if value is meant or (type(value) is meant and as_text(value) == as_text(meant())):
            return name
    return value


def as_text(value: Any) -> Any:
    """A class, callable, criterion or path as text for JSON, its options with it; others as they are."""
    if not callable(value):
        return str(value) if isinstance(value, Path) else value
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    name, options = f"{type(value).__module__}.{type(value).__qualname__}", {}
    if isinstance(value, functools.partial):
        name, options = as_text(value.func), {**dict(enumerate(value.args)), **value.keywords}
    elif hasattr(value, "state_dict"):
        options = {key: option for key, option in vars(value).items() if key[0] != "_" and key != "training"}
        options |= {key: option.tolist() for key, option in value.state_dict().items()}
    return f"{name}({', '.join(f'{key}={option!r}' for key, option in options.items())})"


def check_finite(values: np.ndarray, name: Callable[[int], str], remedy: str) -> None:
    """Refuse numbers that are not finite: no stage takes or writes one.

    Args:
        values: (row, ...) float16, float32 or float64.
        name: of a row: what the numbers are, of which entity and time, and where they are from.
        remedy: what to do about them.

    Raises:
        UserError: there is one; the message names the first row.
    """
    if values.dtype == np.float16:  # of which NumPy's own test is sixteen times as slow
        finite = (np.ascontiguousarray(values).view(np.int16) & FLOAT16_EXPONENT).max(initial=0) < FLOAT16_EXPONENT
    else:
        finite = np.isfinite(values).all()
    if not finite:
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        count = int(np.count_nonzero(bad))
        more = f" ({count:,} such rows)" if count > 1 else ""
        raise UserError(f"{name(int(bad.argmax()))} are not finite numbers{more}: {remedy}")
