"""A whole-track encoder on every track of a split, and on one face's crops as they arrive."""

from collections.abc import Callable, Collection, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.clip_utils import GRID_FPS, MFCC_PER_FRAME
from core.formats.feature_store import VideoFeatures
from core.inference.in_step import in_step
from core.inference.track_embedding import TrackEmbedder
from core.inference.videos import Outputs, by_video
from core.inputs.loading import load_batches
from core.inputs.mfcc import track_loudness, track_mfcc, track_samples
from core.inputs.shots import cues
from core.media.video_audio import VideoAudio
from core.models.track_encoder import TrackEncoder
from core.track_dataset import TrackDataset

EncodeTracks = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

Gives = Literal["features", "cues"] | None  # what a scorer gives of each crop besides its logits
PASSES_S = (1, 2, 3, 4, 5, 6)  # windows of the published own-video protocol
STRETCH = 240 * GRID_FPS  # frames whose windows are scored at a time: windows of all lengths end together there
SMOOTHING = 2  # frames on either side over which that protocol averages scores


def track_encoder(model: TrackEncoder, device: torch.device, dtype: torch.dtype = torch.float32) -> EncodeTracks:
    """A network of whole tracks for evaluation: (mfcc, faces) of one -> (logits, video logits, in step, features).

    Memory does not grow with the track but for the faces themselves, 12.5 kB each, and the results.

    Args:
        model: its weights are taken as they are now.
        device: where it runs.
        dtype: of the visual encoder, torch.float32 or torch.bfloat16.
    """
    embedder = TrackEmbedder(model, device, dtype)

    @torch.inference_mode()
    def encode(mfcc: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        audio, visual = embedder.audio(mfcc), embedder.visual(faces)
        logits, features = embedder.score(audio, visual)
        video_logits = embedder.video_logits(visual)
        told = in_step(embedder.rescore, audio[0], visual[0], video_logits[0], track_loudness(mfcc[0]))
        return logits, video_logits, told[None], features

    return encode


def encode_tracks(
    encode: EncodeTracks,
    dataset: TrackDataset,
    videos: Collection[str],
    *,
    device: torch.device,
    threads: int = 0,
    feature_type: str = "float16",
    description: str = "",
) -> Iterator[VideoFeatures]:
    """The encoder's output for every row of some videos of a split, video by video.

    Args:
        encode: the network in evaluation, see `track_encoder`; all four are (batch, time, ...).
        dataset: tracks, not augmented.
        videos: ids of those that are wanted.
        device: where `encode` runs.
        threads: loader threads.
        feature_type: NumPy's name of the type that features are kept in.
        description: label of the progress bar.
    """
    wanted = dataset.rows["video_id"].isin(videos).to_numpy()
    tracks = np.flatnonzero(wanted[dataset.starts])

    def outputs() -> Iterator[Outputs]:
        batches = ([(0, track, int(dataset.lengths[track]))] for track in tracks.tolist())
        for batch in load_batches(dataset, batches, threads, device):
            logits, *others = (output[0] for output in encode(batch.mfcc, batch.faces))
            yield logits, None, *others

    return by_video(dataset.rows[wanted], outputs(), feature_type=feature_type, description=description)


class OnePass:
    """Scores a track in one pass over its whole length, as the encoders were trained.

    Args:
        encoder: the network in evaluation.
        audio: of the whole video.
        first_s: time of the first crop, seconds; the others follow at 25 a second.
        gives: what `finish` returns besides logits.
    """

    def __init__(self, encoder: TrackEmbedder, audio: VideoAudio, first_s: float, *, gives: Gives = "features"):
        self.encoder, self.audio, self.first_s, self.gives = encoder, audio, first_s, gives
        self.faces = encoder.stream()

    def push(self, crop: np.ndarray) -> None:
        """Take the next crop, (112, 112) uint8, grey."""
        self.faces.push(crop)

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (crop, [not speaking, speaking]), and features (crop, 128) or cues (crop, `CUES`), float32.

        There must have been a crop, and none may follow; with another `audio` the same crops can be scored again.
        """
        visual = self.faces.finish()
        mfcc = _mfcc(self.audio, self.first_s, len(visual))
        audio = self.encoder.audio(mfcc[None])[0]
        logits, features = (output[0].cpu().numpy() for output in self.encoder.score(audio[None], visual[None]))
        if self.gives == "cues":
            video_logits = self.encoder.video_logits(visual)
            told = in_step(self.encoder.rescore, audio, visual, video_logits, track_loudness(mfcc))
            return logits, cues(logits, video_logits.cpu().numpy(), told.cpu().numpy())
        return logits, features if self.gives else None


class SixPasses:
    """Scores a track as the published own-video script does: in windows of 1, 2, 3, 4, 5 and 6 s, each on its own; the
    six logits of a frame are averaged, then over two frames on either side.

    The script encodes each face six times, here it is twice. An embedding depends on less than half a second on either
    side: inside a window it is that of the whole track, and near a window's edge that of the window of 1 s with the
    same edge, whatever the window's length.

    Args:
        encoder, audio, first_s: as `OnePass`.
    """

    def __init__(self, encoder: TrackEmbedder, audio: VideoAudio, first_s: float):
        self.encoder, self.audio, self.first_s = encoder, audio, first_s
        self.context = max(encoder.visual_context, encoder.audio_context)
        self.faces = encoder.stream()
        self.seconds = encoder.stream_windows(GRID_FPS)

    def push(self, crop: np.ndarray) -> None:
        """Take the next crop, (112, 112) uint8, grey."""
        self.faces.push(crop)
        self.seconds.push(crop)

    @torch.inference_mode()
    def finish(self) -> tuple[np.ndarray, None]:
        """Averaged logits (crop, [not speaking, speaking]) float32, and nothing for a context network; ends the scorer.

        There must have been a crop.
        """
        visual, visual_seconds = self.faces.finish(), self.seconds.finish()
        mfcc = _mfcc(self.audio, self.first_s, len(visual))
        audio = self.encoder.audio(mfcc[None])[0]
        parts = []
        for start in range(0, len(visual), STRETCH):
            frames = slice(start, start + STRETCH)
            windows = slice(MFCC_PER_FRAME * frames.start, MFCC_PER_FRAME * frames.stop)
            whole = torch.cat((audio[frames], visual[frames]), dim=1)
            seconds = torch.cat((self._audio_seconds(mfcc[windows]), visual_seconds[frames]), dim=1)
            parts.append(sum(self._pass(length * GRID_FPS, whole, seconds) for length in PASSES_S) / len(PASSES_S))
        features = _running_mean(torch.cat(parts), SMOOTHING)
        # The score layer is linear: the logits of averaged features are the averaged logits.
        return self.encoder.logits(features).cpu().numpy(), None

    def _audio_seconds(self, mfcc: Tensor) -> Tensor:
        """Embeddings (time, 128) of audio that is cut into windows of 1 s."""
        windows = _windows(mfcc, MFCC_PER_FRAME * GRID_FPS)
        return torch.cat([self.encoder.audio(part).flatten(0, 1) for part in windows])

    def _pass(self, length: int, whole: Tensor, seconds: Tensor) -> Tensor:
        """Features (time, 128) of a stretch of the track in windows of `length` frames.

        Args:
            whole: embeddings of the uncut track, (time, audio 128 + visual 128).
            seconds: those of the track cut into windows of 1 s.
        """
        features = []
        for window, cut in zip(_windows(whole, length), _windows(seconds, length), strict=True):
            audio, visual = self._edged(window, cut, ends=window.shape[1] < length).chunk(2, dim=2)
            features.append(self.encoder.score(audio, visual)[1].flatten(0, 1))
        return torch.cat(features)

    def _edged(self, whole: Tensor, seconds: Tensor, ends: bool) -> Tensor:
        """Embeddings of windows cut from the track, (window, time, 256); `ends`: they end where the track does."""
        edged = whole.clone()
        edged[:, : self.context] = seconds[:, : self.context]
        if not ends:
            edged[:, -self.context :] = seconds[:, -self.context :]
        return edged


def _mfcc(audio: VideoAudio, first_s: float, frames: int) -> Tensor:
    """(4 * frames, 13) float32, of a track that begins at `first_s`; beyond the ends of the audio, of silence."""
    return torch.from_numpy(track_mfcc(audio.part(first_s, track_samples(frames)), np.arange(frames)))


def _windows(values: Tensor, length: int) -> Iterator[Tensor]:
    """(row, ...) in windows: the full ones together, (window, length, ...), then the rows left over, (1, rest, ...)."""
    full = len(values) // length * length
    if full:
        yield values[:full].unflatten(0, (-1, length))
    if full < len(values):
        yield values[full:].unsqueeze(0)


def _running_mean(values: Tensor, reach: int) -> Tensor:
    """(n, column) -> the mean over `reach` rows on either side, at the ends over those that there are."""
    return F.avg_pool1d(values.T, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False).T
