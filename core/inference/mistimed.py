"""How an encoder's score falls where a face is given the audio of other times: whether the two are in step.

A mouth that moves beside somebody else's voice scores nearly as well with audio from a second earlier; one that is
heard does not. The face's and the audio's embeddings are there already, so this costs the encoder's last layers alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 12_000  # time steps scored at once, of all shifts together: few shifts of a long track
SHIFTS = (-25, -18, -12, -8, 8, 12, 18, 25)  # frames, of 1/25 s: beyond what a dubbed mouth may be out of step


@torch.inference_mode()
def mistimed(score: Callable[[Tensor, Tensor], Tensor], audio: Tensor, visual: Tensor) -> Tensor:
    """The log odds of speaking of one track, its audio shifted in a circle by each of `SHIFTS`.

    Args:
        score: the encoder's last layers: embeddings of audio and faces, each (batch, time, ...), to logits
            (batch, time, [not speaking, speaking]).
        audio, visual: the track's embeddings, (time, ...).

    Returns:
        (time, [mean, maximum]) float32, over the shifts.
    """
    parts, at_once = [], max(1, STEPS // len(audio))
    for begin in range(0, len(SHIFTS), at_once):
        shifted = torch.stack([audio.roll(shift % len(audio), dims=0) for shift in SHIFTS[begin : begin + at_once]])
        logits = score(shifted, visual.expand(len(shifted), *visual.shape)).float()
        parts.append(logits[..., 1] - logits[..., 0])
    odds = torch.cat(parts)
    return torch.stack((odds.mean(0), odds.amax(0)), dim=1)
