"""The networks that become files, with the names, axes and meaning of what goes in and comes out, and all that a
program without this repository has to know to use them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.clip_utils import COEFFICIENTS, FACE_SIZE, GRID_FPS, MFCC_PER_FRAME
from core.formats.wav import SAMPLE_RATE
from core.inference import voices
from core.inputs import mfcc
from core.inputs.clip_mfcc import fitted_length, mfcc_windows
from core.inputs.transforms import MEAN, STD
from core.models import ASC_Net, ResidualContext, TrackEncoder, TwoStreamResNet
from core.models.residual_context import REACH
from core.models.track_encoder import Backward, Forward

FORMATS = ("onnx", "openvino")
CROP_MEANINGS = {
    "box": "The face's box, clamped to the frame, its edges truncated to whole pixels.",
    "lower_face": "The square from 0.3 s above the centre of the face's box to 1.1 s below it and 0.7 s to either "
    "side, s being half of the box's longer side, its edges rounded to whole pixels; grey 110 beyond the frame.",
}
RESIZED = f"Resized to {FACE_SIZE} x {FACE_SIZE} pixels (bilinear), grey (ITU-R BT.601), 0 to 255."
LOGITS = "Logits of not speaking and speaking; the second less the first are the log odds of speaking."
MFCC = {
    "sample_rate": SAMPLE_RATE,
    "samples": "mono, on the scale of 16 bit integers",
    "window": mfcc.WINDOW,
    "window_function": "rectangular",
    "step": mfcc.STEP,
    "fft": mfcc.FFT,
    "mel_filters": mfcc.FILTERS,
    "coefficients": COEFFICIENTS,
    "lifter": mfcc.LIFTER,
    "preemphasis": mfcc.PREEMPHASIS,
    "first_coefficient": "logarithm of the window's energy",
    "same_as": "python_speech_features.mfcc with its defaults",
}


CUE_MEANINGS = {
    "logit": "The encoder's log odds of speaking.",
    "video_logit": "Those by the faces alone.",
    "mean_fall": "The first, less the mean of those with the track's embeddings of the audio rolled by so many frames: "
    f"{', '.join(map(str, voices.SHIFTS))}.",
    "least_fall": "The first, less the largest of these.",
    "correlation": "Of the second with the loudness (mean of a frame's first MFCCs, each at least 0), both smoothed by "
    f"a bell of {voices.SMOOTHING:g} frames' standard deviation and less their mean over {voices.AROUND} frames to "
    f"either side: c / sqrt(v * w + {voices.LEAST:g}) of covariance and variances over as many.",
}
# What is added to the network's odds behind it.
VOICES = (
    f"Scores are odds + {voices.WEIGHT:g} * log((p + {voices.SELDOM:g}) / (q + {voices.SELDOM:g})): q is a face's mean "
    f"probability by the odds at times {voices.APART + 1} to {voices.WITHIN} frames away, p the same weighted "
    f"by exp(-d ** 2 / {2 * voices.ALIKE**2:g}); d is the distance from the time's 13 MFCCs, smoothed by a bell of "
    f"{voices.SYLLABLES:g} frames' standard deviation."
)


@dataclass(frozen=True)
class Array:
    """An input or an output.

    Attributes:
        name: of it.
        axes: a length, or the name of an axis that may have any; "4 * time" is four times as long as "time".
        meaning: in a sentence.
        dtype: NumPy's name.
    """

    name: str
    axes: tuple[int | str, ...]
    meaning: str
    dtype: str = "float32"

    def drawn(self, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
        """Random values, of axes whose lengths are given by their names."""
        shape = [axis if isinstance(axis, int) else _size(axis, sizes) for axis in self.axes]
        if self.dtype == "uint8":
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        values = torch.randn(shape, generator=generator)
        return values > -1 if self.dtype == "bool" else values


@dataclass(frozen=True)
class Network:
    """What becomes one file.

    Attributes:
        name: of the file, without its ending.
        module: in evaluation, on the CPU.
        inputs, outputs: in the order of the module's.
        about: what else its user has to know, as plain values.
    """

    name: str
    module: nn.Module
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def run(self, inputs: Mapping[str, Tensor]) -> list[np.ndarray]:
        """The outputs that PyTorch computes."""
        with torch.inference_mode():
            outputs = self.module(*(inputs[array.name] for array in self.inputs))
        return [output.numpy() for output in ((outputs,) if isinstance(outputs, Tensor) else outputs)]


class Visual(nn.Module):
    """The first part of a whole-track encoder: faces (batch, time, 112, 112) -> embeddings, logits by them alone."""

    def __init__(self, encoder: TrackEncoder):
        super().__init__()
        self.encoder, self.classifier = encoder.model.visualEncoder, encoder.lossV.FC

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.encoder(faces)
        return embeddings, self.classifier(embeddings)


def track_encoder(name: str, model: TrackEncoder, crop: str, about: Mapping[str, Any]) -> list[Network]:
    """A whole-track encoder: as it is, and in the four parts that scoring faces as they come needs.

    Args:
        name: of the network.
        model: in evaluation.
        crop: how faces are cut for it, a name of `CROP_MEANINGS`.
        about: of its weights.
    """
    inner = model.model
    preparation = {
        "frames_per_second": GRID_FPS,
        "faces": {"crop": crop, "meaning": f"{CROP_MEANINGS[crop]} {RESIZED}"},
        "mfcc": MFCC
        | {"windows_per_frame": MFCC_PER_FRAME, "first_window": "begins at the time of the track's first frame"},
    }
    # Blocks of a track need as many frames beside them, and a GRU's state goes from block to block.
    reach = {"visual_context_frames": inner.visual_context, "audio_context_frames": inner.audio_context}
    about = {"network": name, **about, "preparation": preparation, **reach}
    over_time = ("batch", "time")
    faces = Array("faces", (*over_time, FACE_SIZE, FACE_SIZE), "A face at each frame, grey.", "uint8")
    coefficients = Array("mfcc", ("batch", f"{MFCC_PER_FRAME} * time", COEFFICIENTS), "MFCCs of the audio.")
    audio, visual = (
        Array(stream, (*over_time, model.feature_size), f"Embeddings of the {meaning}.")
        for stream, meaning in (("audio", "audio"), ("visual", "faces"))
    )
    output = Array("forward", (*over_time, inner.state_size), "Outputs of the GRU that runs forward in time.")
    logits = Array("logits", (*over_time, 2), LOGITS)
    video_logits = Array("video_logits", (*over_time, 2), f"By the faces alone. {LOGITS}")
    features = Array("features", (*over_time, model.feature_size), "What the logits are a linear function of.")
    state, new_state = (
        Array(of, (1, "batch", inner.state_size), f"The GRU's state {when}.")
        for of, when in (("state", "before the block; zeros at the track's end"), ("new_state", "after the block"))
    )
    parts = {
        "": (model, (coefficients, faces), (logits, video_logits, features)),
        "_audio": (inner.audioEncoder, (coefficients,), (audio,)),
        "_visual": (Visual(model), (faces,), (visual, video_logits)),
        "_forward": (Forward(model), (audio, visual, state), (output, new_state)),
        "_backward": (Backward(model), (audio, visual, output, state), (logits, features, new_state)),
    }
    return [Network(name + part, *arrays, about) for part, arrays in parts.items()]


def two_streams(name: str, model: TwoStreamResNet, about: Mapping[str, Any]) -> list[Network]:
    """An encoder of clips; arguments as `track_encoder`."""
    length = model.rgb_stack_size
    samples = fitted_length(length)
    preparation = {
        "frames_per_second": GRID_FPS,
        "clip_frames": length,
        "frames": {
            "crop": f"{CROP_MEANINGS['box']} Resized to 144 x 144 pixels, or to the size of its training (bicubic).",
            "channels": "red, green, blue of the first frame, then of the next; (value / 255 - mean) / std",
            "mean": MEAN,
            "std": STD,
        },
        "mfcc": MFCC
        | {"clip": f"from its first frame to its last; reflected or cut on both sides alike to {samples} samples"},
    }
    inputs = (
        Array("mfcc", ("batch", 1, COEFFICIENTS, mfcc_windows(samples)), "MFCCs of the clips' audio."),
        Array("frames", ("batch", 3 * length, "height", "width"), "The clips' faces, in order of time."),
    )
    outputs = (
        Array("logits", ("batch", 2), f"Of the face in the middle frame. {LOGITS}"),
        Array("audio_logits", ("batch", 2), f"Of anybody, by the audio alone. {LOGITS}"),
        Array("video_logits", ("batch", 2), f"Of the face, by the frames alone. {LOGITS}"),
        Array("features", ("batch", model.feature_size), "What ASC_Net reads: of the audio, then of the frames."),
    )
    return [Network(name, model, inputs, outputs, {"network": name, **about, "preparation": preparation})]


def published_context(model: ASC_Net, shape: tuple[int, int, int], about: Mapping[str, Any]) -> list[Network]:
    """The published context network.

    Args:
        model: in evaluation.
        shape: of its contexts: time steps, frames from one to the next, speakers.
        about: of its weights.
    """
    steps, stride, speakers = shape
    size = model.sat.theta.in_channels
    meaning = "The encoder's features; the first speaker is the one that is scored, at the middle time step."
    inputs = (Array("features", ("batch", size, steps, speakers), meaning),)
    outputs = (Array("logits", ("batch", 2), LOGITS),)
    about = {"network": "ASC_Net", **about, "frames_per_second": GRID_FPS, "frames_between_steps": stride}
    return [Network("context", model, inputs, outputs, about)]


def residual_context(model: ResidualContext, about: Mapping[str, Any]) -> list[Network]:
    """The residual context network; `about` its weights."""
    meaning = "What is known of each face, in the order of cues; of any value where it is not present."
    inputs = (
        Array("cues", ("batch", "face", "time", len(CUE_MEANINGS)), meaning),
        Array("present", ("batch", "face", "time"), "Whether the face is there.", "bool"),
    )
    outputs = (Array("odds", ("batch", "face", "time"), "Log odds of speaking; of any value where not present."),)
    about = {"network": "residual", **about, "frames_per_second": GRID_FPS, "context_frames": REACH}
    about |= {"cues": CUE_MEANINGS, "voices": VOICES}
    return [Network("context", model, inputs, outputs, about)]


def _size(axis: str, sizes: Mapping[str, int]) -> int:
    """The length of a named axis."""
    factor, _, name = axis.rpartition(" * ")
    return int(factor or 1) * sizes[name]
