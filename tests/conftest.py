"""Shared fixtures. The session's folders are for reading: a test that changes files copies them first."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ava_asd_set import StaticSet, lay_out, prepare_static
from faulty_server import FaultyServer
from tiny import make_tiny_set, prepare

from core.models import light_asd

torch.set_num_threads(1)  # tiny tensors; several test runs may share the cores
os.environ["OMP_NUM_THREADS"] = "1"  # likewise, in OpenVINO and in programs that tests start
os.environ["RAY_AUTH_MODE"] = "disabled"  # or Ray leaves a token in the home folder, and asks all later clusters for it
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what runs in the background so, and the programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of all tests, empty at the beginning."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ASC_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in AVA layout: `videos/{train,val}/`, `annotations/{train,val}/`; see `tiny.CLIPS`."""
    return make_tiny_set(tmp_path_factory.mktemp("tiny_set"))


@pytest.fixture(scope="session")
def prepared(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`csv/{train,val}.csv` augmented, `audio/{train,val}/`, `crops/{train,val}/` packed at `tiny.CROP_SIZE`."""
    return prepare(tiny_set, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def light_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of an untrained Light-ASD."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "light.pth"
    torch.save(light_asd().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def static_set(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set as ava-extract leaves it: `config.yaml`, and the data folder `data`; see `ava_asd_set`."""
    return prepare_static(tiny_set, tmp_path_factory.mktemp("static_set"))


@pytest.fixture
def extracted(static_set: Path) -> StaticSet:
    """`static_set`, for reading."""
    return StaticSet(static_set)


@pytest.fixture
def copied(static_set: Path, tmp_path: Path) -> StaticSet:
    """`static_set` as a copy that a test may change."""
    shutil.copytree(static_set / "data", tmp_path / "data")
    shutil.copy(static_set / "config.yaml", tmp_path)
    return StaticSet(tmp_path)


@pytest.fixture
def laid_out(tiny_set: Path, tmp_path: Path) -> StaticSet:
    """The tiny set as ava-extract finds it."""
    return lay_out(tiny_set, tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A running server, without files yet."""
    monkeypatch.setenv("no_proxy", "*")
    with FaultyServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and published numbers beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="session")
def unusual(shared: Path) -> Path:
    """The folder of short real videos, each unusual in one way."""
    folder = shared / "mini-ava" / "unusual"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder
