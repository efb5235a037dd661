"""What the ava-* commands share: the folder that they may write to."""

from pathlib import Path

import pytest
from ava_asd_set import SHIPPED
from tiny import exit_status

from ava_asd import download, evaluate, extract, subset, train
from core.runtime.errors import EXIT_USER_ERROR
from scripts import visualise_dataset

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    (download.main, "videos"),
    (extract.main, "videos"),
    (subset.main,),
    (train.main,),
    (evaluate.main, "--weights-file", "x.pth"),
    (visualise_dataset.main,),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0].__module__)
@pytest.mark.parametrize("folder", ["", "data", "ava_asd"])
def test_no_command_writes_between_the_code(command, folder, capsys):
    main, *options = command
    assert exit_status(main, *options, SHIPPED, ROOT / folder) == EXIT_USER_ERROR
    assert f"{ROOT / folder} holds this repository's code" in capsys.readouterr().err
