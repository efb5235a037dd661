"""Joins by key: every disagreement is told with numbers and examples."""

import numpy as np
import pandas as pd
import pytest

from core.formats.ava import positions
from core.runtime.errors import UserError


def table(*keys: str) -> pd.DataFrame:
    """Rows of "<entity>@<timestamp>"."""
    entities, timestamps = zip(*(key.split("@") for key in keys), strict=True)
    return pd.DataFrame({"entity_id": entities, "frame_timestamp": timestamps})


def join(annotated: pd.DataFrame, found: pd.DataFrame) -> np.ndarray:
    return positions(annotated, found["entity_id"].to_numpy(), found["frame_timestamp"].to_numpy(), "the folder F")


def test_rows_are_found_whatever_their_order():
    annotated = table("a@1.0", "a@1.04", "-b:1@1.0")
    found = table("-b:1@1.0", "a@1.04", "a@1.0")
    assert join(annotated, found).tolist() == [2, 1, 0]


def test_the_text_of_a_timestamp_is_the_key():
    with pytest.raises(UserError, match=r"1 annotated rows are missing \(a at 1\.10\); 1 rows .* \(a at 1\.1\)"):
        join(table("a@1.10"), table("a@1.1"))


def test_missing_rows():
    with pytest.raises(UserError, match=r"the folder F does not fit.*: 1 annotated rows are missing \(b at 2\.0\);"):
        join(table("a@1.0", "b@2.0"), table("a@1.0"))


def test_surplus_rows():
    with pytest.raises(UserError, match=r"the folder F .*: 1 rows are not annotated \(b at 2\.0\); forward"):
        join(table("a@1.0"), table("b@2.0", "a@1.0"))


def test_many_missing_rows_are_counted_and_three_shown():
    many = table(*(f"e@{second}" for second in range(2000)))
    with pytest.raises(UserError, match=r"1,999 annotated rows are missing \(e at 1, e at 10, e at 100, \.\.\.\)"):
        join(many, many[:1])


def test_keys_there_twice():
    with pytest.raises(UserError, match=r"the folder F has keys twice: a at 1\.0$"):
        join(table("a@1.0"), table("a@1.0", "a@1.0"))
