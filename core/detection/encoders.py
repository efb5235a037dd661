"""The encoders that detection can use, opened by name: crops and audio of a face in, logits and features out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import models
from core.detection import options
from core.detection.face_tracks import TrackScorer
from core.download.weights_catalogue import find_weights
from core.inference.clips import ClipScorer
from core.inference.contexts import TrackFeatures, score_shot
from core.inference.engine import DTYPES, has_bfloat16, in_pytorch, runtime_name
from core.inference.track_embedding import TrackEmbedder
from core.inference.tracks import OnePass, SixPasses
from core.media.cropping import CROPS, CropFunction
from core.media.video_audio import VideoAudio
from core.models.fast_context import ContextScorer
from core.models.weights import clip_length_of, fill, load_weights, read_state_dict
from core.runtime.errors import UserError
from core.runtime.files import fingerprint
from core.training.runs import check_trained_with

ContextShape = tuple[int, int, int]  # time steps, frames from one to the next, speakers


@dataclass(frozen=True)
class Encoder:
    """An encoder ready to score faces, with or without a context network behind it.

    Attributes:
        crop: cuts a face for it.
        start: makes the scorer of one face from the video's audio and the time of the face's first crop.
        settings: what its scores depend on, as plain values.
        context: the context network, or None.
        context_shape: its time steps, the frames from one to the next, and speakers.
        device: where the networks run.
    """

    crop: CropFunction
    start: Callable[[VideoAudio, float], TrackScorer]
    settings: dict[str, Any]
    context: ContextScorer | None
    context_shape: ContextShape
    device: torch.device

    def score_in_context(self, tracks: Sequence[TrackFeatures]) -> list[np.ndarray]:
        """The context network's logits of all faces of a shot, each (crop, [not speaking, speaking]) float32."""
        return score_shot(self.context, tracks, self.context_shape, self.device) if tracks else []


def open_encoder(
    name: str,
    weights: str | Path | None,
    *,
    crop: str | None,
    ensemble: bool,
    precision: str,
    context: str | Path | None,
    context_shape: ContextShape,
    device: torch.device,
    cache: str | Path | None,
) -> Encoder:
    """Load an encoder; arguments as `core.detection.ActiveSpeakerDetector` has them.

    Raises:
        UserError: a name or a file is wrong, weights could not be downloaded, or arguments do not go together.
    """
    if name not in options.ENCODERS:
        raise UserError(f"unknown encoder {name!r}: choose one of {', '.join(options.ENCODERS)}")
    if precision not in options.PRECISIONS:
        raise UserError(f"unknown precision {precision!r}: choose one of {', '.join(options.PRECISIONS)}")
    whole_tracks = name in options.WHOLE_TRACK_ENCODERS
    if precision == "auto":
        precision = "bf16" if whole_tracks and device.type == "cpu" and has_bfloat16() else "fp32"
    dtype = DTYPES[precision]
    if not whole_tracks:
        faults = ["crop"] * (crop is not None) + ["ensemble"] * ensemble
        if faults:
            known = " and ".join(options.WHOLE_TRACK_ENCODERS)
            raise UserError(f"the encoder {name} does not take {' and '.join(faults)}, which only {known} do: omit it")
        if weights is None:
            raise UserError(f"the encoder {name} has no published weights here: give the path of a state dict (.pth)")
        path, crop_name = Path(weights), "colour"
        size, start = _two_stream(name, path, device, dtype, with_features=context is not None)
    else:
        if crop not in (None, *options.CROPS):
            raise UserError(f"unknown crop {crop!r}: choose one of {', '.join(options.CROPS)}")
        if ensemble and context is not None:
            raise UserError("a context network is trained on features of one pass: give context or ensemble, not both")
        path, protocol = find_weights(name, weights, cache)
        crop_name = crop or protocol or "box"
        size, start = _whole_track(name, path, ensemble, device, dtype)
    if context is not None:
        trained_with = dict(zip(("clip_length", "skip_frames", "speakers"), context_shape, strict=True))
        check_trained_with(Path(context), "ASC", trained_with | {"made_of.encoder.weights": fingerprint(path)})
    scorer = None if context is None else _context(context, context_shape, size, device)
    settings = {"encoder": name, "weights": path.name, "weights_sha256": fingerprint(path), "crop": crop_name}
    settings |= {"ensemble": ensemble, "precision": precision}
    if whole_tracks:
        settings["runtime"] = runtime_name(device)
    if context is not None:
        settings |= {"context": Path(context).name, "context_sha256": fingerprint(context)}
        settings |= {"context_shape": list(context_shape)}
    return Encoder(CROPS[crop_name], start, settings, scorer, context_shape, device)


def _whole_track(name: str, path: Path, ensemble: bool, device: torch.device, dtype: torch.dtype):
    model = models.TRACK_ENCODERS[name]()
    load_weights(model, path, f"{name} weights")
    encoder = TrackEmbedder(model, device, dtype)
    make = SixPasses if ensemble else OnePass
    return model.feature_size, lambda audio, first_s: make(encoder, audio, first_s)


def _two_stream(name: str, path: Path, device: torch.device, dtype: torch.dtype, *, with_features: bool):
    weights = read_state_dict(path, "STE checkpoint")
    clip_length = clip_length_of(weights)
    model = models.make_encoder(name, False, clip_length)
    fill(model, weights, path, "STE checkpoint")
    encode = in_pytorch(model, device, dtype)

    def start(audio: VideoAudio, first_s: float) -> ClipScorer:
        return ClipScorer(encode, clip_length, audio, first_s, device=device, with_features=with_features)

    return model.feature_size, start


def _context(path: str | Path, shape: ContextShape, feature_size: int, device: torch.device) -> ContextScorer:
    clip_length, _, speakers = shape
    model = models.ASC_Net(clip_length, speakers, feature_size=feature_size)
    load_weights(model, path, "ASC checkpoint")
    return ContextScorer(model.to(device))
