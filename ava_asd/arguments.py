"""What the command lines of the ava-* commands have in common."""

import argparse
from pathlib import Path

import torch

from ava_asd.config import Config, read_config
from core.runtime import devices
from core.runtime.checks import as_path
from core.runtime.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
GREATEST_SEED = 2**63 - 1  # PyTorch's generators take no greater one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The positional arguments of every command."""
    parser.add_argument("config", type=as_path, help="settings, such as configs/config.yaml")
    parser.add_argument("data", type=data_folder, help="folder of the settings' relative paths, such as ava_data")


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """The option of commands that run a network."""
    parser.add_argument("--device", help="index of a CUDA device, or cpu; default: device 0 if there is one, else cpu")


def data_folder(text: str) -> Path:
    """An argparse type: a folder for data, not one of this repository's code."""
    path = as_path(text)
    if path.resolve().is_relative_to(REPOSITORY) and any(path.glob("*.py")):
        raise argparse.ArgumentTypeError(f"{text} holds this repository's code: give another folder, such as ava_data")
    return path


def seed(text: str) -> int:
    """An argparse type: a whole number that random numbers can start from."""
    number = int(text)
    if not 0 <= number <= GREATEST_SEED:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 0 to {GREATEST_SEED}")
    return number


def configuration(arguments: argparse.Namespace) -> Config:
    """The settings that a command line names.

    Raises:
        UserError: the data folder is absent, or as `read_config`.
    """
    config = read_config(arguments.config)
    if not arguments.data.is_dir():
        raise UserError(f"no data folder {arguments.data}: make it, or give the one that holds {config.extracted_path}")
    return config


def device(arguments: argparse.Namespace) -> torch.device:
    """The device that a command line names.

    Raises:
        UserError: this machine has no such device.
    """
    return devices.device(arguments.device or ("0" if torch.cuda.is_available() else "cpu"))
