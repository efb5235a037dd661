"""A stage that is killed and run again leaves what an undisturbed run leaves; more with benchmarks/kill.py."""

import random

from benchmarks.kill import contents, kills, stages
from core.runtime.provenance import Record


def test_a_killed_stage_goes_on_where_it_was(tmp_path):
    chosen = stages()
    assert kills("set", chosen["set"], tmp_path, 2, random.Random(3)) == []
    assert kills("csv", chosen["csv"], tmp_path, 2, random.Random(0)) == []


def test_records_are_compared_without_the_times_of_files(tmp_path):
    def made(folder: str, text: str) -> dict[str, bytes]:
        record = Record(tmp_path / folder, "v", "text", {"length": 3})
        with record.making(["v.txt"]):
            (tmp_path / folder / "v.txt").write_text(text)
        return contents(tmp_path / folder, "*")

    first, again, other = made("a", "abc"), made("b", "abc"), made("c", "abd")
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"v.txt", ".made/v.json"}
