"""The encoders that detection can use, opened by name, and the context networks behind them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.detection import options
from core.detection.face_tracks import TrackScorer
from core.download.weights_catalogue import SHIPPED_CONTEXTS, find_weights
from core.inference import residual_contexts, track_embedding
from core.inference.engine import Kept, Parts, in_pytorch, open_networks, runtime_name
from core.inference.residual_contexts import ResidualScorer
from core.inference.track_embedding import TrackEmbedder, visual_precision
from core.inference.tracks import Gives, OnePass, SixPasses
from core.inputs.shots import TrackFeatures
from core.media.cropping import CROPS, CropFunction
from core.media.video_audio import VideoAudio
from core.runtime.errors import UserError
from core.runtime.files import fingerprint, read_json
from core.runtime.provenance import digest_of

ContextShape = tuple[int, int, int]  # time steps, frames from one to the next, speakers
Start = Callable[[VideoAudio, float], TrackScorer]  # from the video's audio and the time of a face's first crop
# The encoder's feature size, what makes its scorers' maker, and `Encoder.network`.
Opened = tuple[int, Callable[[Gives], Start], TrackEmbedder | None]


@dataclass(frozen=True)
class Context:
    """A context network ready to score.

    Attributes:
        reads: what a track's scorer has to give of a face.
        score: of a shot's faces, in any order, their logits, each (crop, [not speaking, speaking]) float32.
        settings: what its scores depend on, as plain values.
        note: what the user should know of it, or None.
        with_voices: of faces, of one or several shots, their logits, numbers of their persons and the first time step
            that is wanted, the logits with what voices add: see `ResidualScorer.with_voices`; None where there is none.
    """

    reads: Gives
    score: Callable[[Sequence[TrackFeatures]], list[np.ndarray]]
    settings: dict[str, Any]
    note: str | None = None
    with_voices: Callable[..., list[np.ndarray]] | None = None

    def scores(self, faces: Sequence[TrackFeatures]) -> list[np.ndarray]:
        """The logits of a shot's faces with what voices add, each face being a person."""
        logits = self.score(faces)
        return logits if self.with_voices is None else self.with_voices(faces, logits, range(len(faces)))


@dataclass(frozen=True)
class Encoder:
    """An encoder ready to score faces, with or without a context network behind it.

    Attributes:
        crop: cuts a face for it.
        start: makes the scorer of one face from the video's audio and the time of the face's first crop.
        settings: what its scores depend on, as plain values.
        context: the context network, or None.
        network: what embeds whole tracks and scores them; None where the encoder is one of clips.
    """

    crop: CropFunction
    start: Start
    settings: dict[str, Any]
    context: Context | None
    network: TrackEmbedder | None

    @property
    def has_voices(self) -> bool:
        """Whether behind its context network voices add to the scores."""
        return self.context is not None and self.context.with_voices is not None


def open_encoder(
    name: str,
    weights: str | Path | None,
    *,
    crop: str | None,
    ensemble: bool,
    precision: str,
    context: str | Path | None,
    context_shape: ContextShape,
    device: str,
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
    options.check_options({"encoder": name, "crop": crop, "ensemble": ensemble, "context": context}, {})
    whole_tracks = name in options.WHOLE_TRACK_ENCODERS
    if not whole_tracks:
        if weights is None:
            raise UserError(f"the encoder {name} has no published weights here: give the path of a state dict (.pth)")
        path, crop_name = Path(weights), "colour"
    else:
        if crop not in (None, *options.CROPS):
            raise UserError(f"unknown crop {crop!r}: choose one of {', '.join(options.CROPS)}")
        path, protocol = find_weights(name, weights, cache)
        crop_name = crop or protocol or "box"
    sha256 = fingerprint(path)
    asked = "fp32" if precision == "auto" and not whole_tracks else precision
    precision, ranges = visual_precision(asked, sha256, device)
    if whole_tracks:
        kept = Kept(name, sha256, cache, ranges)
        feature_size, starting, embedder = _whole_track(path, kept, device, precision, ensemble=ensemble)
    else:
        feature_size, starting, embedder = _two_stream(name, path, device, precision)
    if context == options.SHIPPED:
        # With other crops or passes the scores are others than those that it was trained on.
        fits = whole_tracks and not ensemble and crop_name == protocol
        context = shipped_for(name, sha256) if fits else options.NONE
    network = None
    if context not in (None, options.NONE):
        if not Path(context).is_file():
            raise UserError(
                f"context {context}: there is no such file; give {options.SHIPPED}, {options.NONE} or the path of a "
                "state dict"
            )
        network = open_context(Path(context), context_shape, feature_size, sha256, device, cache)
    settings = {"encoder": name, "weights": path.name, "weights_sha256": sha256, "crop": crop_name}
    settings |= {"ensemble": ensemble, "precision": precision}
    if ranges:
        settings["int8_ranges_sha256"] = digest_of(ranges, ranges.values())
    if whole_tracks:
        settings["runtime"] = runtime_name(device)
    settings |= {"context": None} if network is None else network.settings
    start = starting(None if network is None else network.reads)
    return Encoder(CROPS[crop_name], start, settings, network, embedder)


def _whole_track(path: Path, kept: Kept, device: str, precision: str, *, ensemble: bool) -> Opened:
    def parts() -> Parts:
        from core import models
        from core.models.weights import load_weights

        model = models.TRACK_ENCODERS[kept.name]()
        load_weights(model, path, f"{kept.name} weights")
        return track_embedding.parts_of(model, kept.ranges)

    encoder = TrackEmbedder(open_networks(parts, device, kept, {"visual": precision}))

    def starting(gives: Gives) -> Start:
        if ensemble:
            return lambda audio, first_s: SixPasses(encoder, audio, first_s)
        return lambda audio, first_s: OnePass(encoder, audio, first_s, gives=gives)

    return encoder.feature_size, starting, encoder


def _two_stream(name: str, path: Path, device: str, precision: str) -> Opened:
    from core import models
    from core.inference.clips import ClipScorer
    from core.models.weights import clip_length_of, fill, read_state_dict

    weights = read_state_dict(path, "STE checkpoint")
    length = clip_length_of(weights)
    model = models.make_encoder(name, False, length)
    fill(model, weights, path, "STE checkpoint")
    encode, heads = in_pytorch(model, device, precision), model.to(device).eval().heads

    def starting(gives: Gives) -> Start:
        return lambda audio, first_s: ClipScorer(encode, heads, length, audio, first_s, device=device, gives=gives)

    return model.feature_size, starting, None


def shipped_for(encoder: str, encoder_sha256: str) -> Path | None:
    """The shipped context network that was trained on what these weights of an encoder give, if there is one.

    Raises:
        UserError: it is not what its record tells of.
    """
    path, record = SHIPPED_CONTEXTS / f"{encoder}.pth", SHIPPED_CONTEXTS / f"{encoder}.json"
    if not record.is_file():
        return None
    made = read_json(record, f"restore {SHIPPED_CONTEXTS}")
    if made.get("encoder_sha256", encoder_sha256) != encoder_sha256:
        return None
    if not path.is_file() or fingerprint(path) != made.get("sha256"):
        raise UserError(f"{path} is not what {record.name} tells of: restore both, or give --context none")
    return path


def open_context(
    path: Path, shape: ContextShape, feature_size: int, encoder_sha256: str, device: str, cache: str | Path | None
) -> Context:
    """Load a context network of either kind.

    Args:
        path: its state dict.
        shape: of `ASC_Net`'s contexts; without effect on the residual network.
        feature_size: of the encoder.
        encoder_sha256: of the encoder's weights.
        device: where the network runs.
        cache: folder for downloads.

    Raises:
        UserError: the file is wrong, or its network was trained with another shape or encoder.
    """
    sha256 = fingerprint(path)
    settings = {"context": path.name, "context_sha256": sha256}
    if path.resolve().parent == SHIPPED_CONTEXTS.resolve() and path.with_suffix(".json").is_file():
        if shipped_for(path.stem, encoder_sha256) is None:
            raise UserError(f"{path} was trained on other weights of an encoder: see {path.stem}.json beside it")
        residual, note = True, None
    else:
        residual, note = _kind_of(path, shape, encoder_sha256)
    if residual:

        def parts() -> Parts:
            from core import models
            from core.models.weights import load_weights

            model = models.ResidualContext()
            load_weights(model, path, "ASC checkpoint")
            return residual_contexts.parts_of(model)

        scorer = ResidualScorer(open_networks(parts, device, Kept(f"context-{path.stem}", sha256, cache)))
        return Context("cues", scorer.tracks, settings, note, scorer.with_voices)

    from core import models
    from core.inference.contexts import score_shot
    from core.models.fast_context import ContextScorer
    from core.models.weights import load_weights

    network = models.ASC_Net(shape[0], shape[2], feature_size=feature_size)
    load_weights(network, path, "ASC checkpoint")
    scorer = ContextScorer(network.to(device))
    settings["context_shape"] = list(shape)
    return Context("features", lambda tracks: score_shot(scorer, tracks, shape, device), settings, note)


def _kind_of(path: Path, shape: ContextShape, encoder_sha256: str) -> tuple[bool, str | None]:
    """Whether a context network of the user's is residual, and what to note of it.

    Raises:
        UserError: as `open_context`.
    """
    from core.dataset import SHAPE
    from core.models.residual_context import is_residual
    from core.models.weights import read_state_dict
    from core.training.runs import check_trained_with

    residual = is_residual(read_state_dict(path, "ASC checkpoint"))
    now = {"ASC_optimization_params.network": "residual" if residual else "ASC_Net"}
    now["made_of.encoder.weights"] = encoder_sha256
    if not residual:
        now |= dict(zip(SHAPE, shape, strict=True))
    if check_trained_with(path, "ASC", now) is None:
        return residual, None
    note = f"Whether {path.name} was trained on this encoder is not known: no record of a training lies beside it."
    return residual, note
