"""A stage that is killed and run again leaves what an undisturbed run leaves; more with benchmarks/kill.py."""

import random

from benchmarks.kill import kills, stages


def test_a_killed_stage_goes_on_where_it_was(tmp_path):
    chosen = stages()
    assert kills("set", chosen["set"], tmp_path, 2, random.Random(3)) == []
    assert kills("csv", chosen["csv"], tmp_path, 2, random.Random(0)) == []
