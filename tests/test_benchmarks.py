"""What benchmarks tell of mistakes; what they measure is no test."""

import pytest

from benchmarks import ava_asd
from core.runtime.errors import UserError


def test_the_benchmark_looks_for_tensorflow_first(tmp_path):
    python = tmp_path / "python"
    with pytest.raises(UserError, match=r"--tensorflow .*python: No such file or directory; give the Python of"):
        ava_asd.results(tmp_path / "data", tensorflow=python)
    for script, words in (
        ("exit 3", "no reason given"),
        ("echo first >&2; echo 'no module cv2' >&2; exit 3", "no module"),
    ):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        with pytest.raises(UserError, match=rf"python: {words}.* \(exit status 3\)"):
            ava_asd.results(tmp_path / "data", tensorflow=python)
    assert not (tmp_path / "data").exists()
