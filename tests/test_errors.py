"""How scripts end: with a status and a message, whatever they are doing."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.runtime.errors import as_given

ROOT = Path(__file__).resolve().parents[1]


SCRIPTS = [path for folder in (ROOT, ROOT / "data", ROOT / "scripts") for path in sorted(folder.glob("[!_]*.py"))]
COMMANDS = [ROOT / "ava_asd" / f"{name}.py" for name in ("download", "extract", "subset", "train", "evaluate")]


@pytest.mark.parametrize("script", [*SCRIPTS, *COMMANDS], ids=lambda path: path.stem)
def test_ctrl_c_while_a_script_is_imported_prints_no_traceback(tmp_path, script):
    slow = f"import pathlib, time; pathlib.Path({str(tmp_path / 'importing')!r}).touch(); time.sleep(60)"
    for name in ("numpy", "pandas", "torch", "cv2", "tqdm", "av", "yaml"):
        (tmp_path / f"{name}.py").write_text(slow)
    command = [sys.executable, "-m", f"ava_asd.{script.stem}"] if script in COMMANDS else [sys.executable, script]
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    options = {"stderr": subprocess.PIPE, "cwd": tmp_path, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **options) as process:
        while not (tmp_path / "importing").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        # Python forgets one that comes while it calls back from the clearing of an object, as it may during an import.
        for _ in range(5):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, err = process.communicate(timeout=6)
                break
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("no file /tmp/x-1/.elsewhere/s3/bucket/a b.mp4", "no file s3://bucket/a b.mp4"),
        ("'/tmp/x/.elsewhere/gs/b/a' and /tmp/x/.elsewhere/s3/b/a", "'gs://b/a' and s3://b/a"),
        ("https://user:word@host/a.mp4?sign=1&key=2: 403", "https://host/a.mp4?… 403"),
        ("(rtsp://user@host:554/a) is silent?", "(rtsp://host:554/a) is silent?"),
        ("a?b.mp4 of me@home", "a?b.mp4 of me@home"),
    ],
)
def test_messages_name_urls_as_they_were_given_but_for_what_may_be_secret(text, given):
    assert as_given(text) == given
