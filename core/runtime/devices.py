"""The device that a command line names: the CPU, or a GPU by its index."""

from typing import TYPE_CHECKING

from core.runtime.errors import UserError

if TYPE_CHECKING:  # it takes a second to import
    import torch


def device(text: str, cluster: str | None = None) -> "torch.device":
    """The device that `cuda_device` names; see `device_name`."""
    import torch

    return torch.device(device_name(text, cluster))


def device_name(text: str, cluster: str | None = None) -> str:
    """PyTorch's name of the device that `cuda_device` names: an index, or cpu, for which PyTorch is not loaded; on a
    cluster an index is what GPU a worker is given.

    Without CUDA an index becomes the CPU, with a message.

    Raises:
        UserError: neither, or an index that this machine does not have.
    """
    if text == "cpu" or (cluster and text.isascii() and text.isdigit()):
        return "cpu" if text == "cpu" else "cuda"
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"cuda_device {text}: expected the index of a CUDA device, such as 0, or cpu")
    import torch

    if not torch.cuda.is_available():
        print(f"no CUDA device here: cuda_device {text} becomes the CPU")
        return "cpu"
    if int(text) >= torch.cuda.device_count():
        raise UserError(f"cuda_device {text}: this machine has the CUDA devices 0 to {torch.cuda.device_count() - 1}")
    return f"cuda:{int(text)}"
