"""A whole-track encoder on one face's crops as they arrive."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from core.clip_utils import GRID_FPS, MFCC_PER_FRAME
from core.inference.track_embedding import TrackEmbedder
from core.inference.voices import in_step
from core.inputs.mfcc import track_heard, track_mfcc, track_samples
from core.inputs.shots import told
from core.media.video_audio import VideoAudio

Gives = Literal["features", "cues"] | None  # what a scorer gives of each crop besides its logits
PASSES_S = (1, 2, 3, 4, 5, 6)  # windows of the published own-video protocol
STRETCH = 240 * GRID_FPS  # frames whose windows are scored at a time: windows of all lengths end together there
SMOOTHING = 2  # frames on either side over which that protocol averages scores


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
        """Logits (crop, [not speaking, speaking]), and features (crop, 128) or what `told` gives, float32.

        There must have been a crop, and none may follow; with another `audio` the same crops can be scored again.
        """
        visual = self.faces.finish()
        mfcc = _mfcc(self.audio, self.first_s, len(visual))
        audio = self.encoder.audio(mfcc[None])[0]
        logits, features = (output[0] for output in self.encoder.score(audio[None], visual[None]))
        if self.gives == "cues":
            video_logits, heard = self.encoder.video_logits(visual), track_heard(mfcc)
            fits = in_step(self.encoder.rescore, audio, visual, video_logits, heard[:, 0])
            return logits, told(logits, video_logits, fits, heard)
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
            whole = np.concatenate((audio[frames], visual[frames]), axis=1)
            seconds = np.concatenate((self._audio_seconds(mfcc[windows]), visual_seconds[frames]), axis=1)
            parts.append(sum(self._pass(length * GRID_FPS, whole, seconds) for length in PASSES_S) / len(PASSES_S))
        features = _running_mean(np.concatenate(parts), SMOOTHING)
        # The score layer is linear: the logits of averaged features are the averaged logits.
        return self.encoder.logits(features), None

    def _audio_seconds(self, mfcc: np.ndarray) -> np.ndarray:
        """Embeddings (time, 128) of audio that is cut into windows of 1 s."""
        windows = _windows(mfcc, MFCC_PER_FRAME * GRID_FPS)
        return np.concatenate([_joined(self.encoder.audio(part)) for part in windows])

    def _pass(self, length: int, whole: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Features (time, 128) of a stretch of the track in windows of `length` frames.

        Args:
            whole: embeddings of the uncut track, (time, audio 128 + visual 128).
            seconds: those of the track cut into windows of 1 s.
        """
        features = []
        for window, cut in zip(_windows(whole, length), _windows(seconds, length), strict=True):
            audio, visual = np.split(self._edged(window, cut, ends=window.shape[1] < length), 2, axis=2)
            features.append(_joined(self.encoder.score(audio, visual)[1]))
        return np.concatenate(features)

    def _edged(self, whole: np.ndarray, seconds: np.ndarray, ends: bool) -> np.ndarray:
        """Embeddings of windows cut from the track, (window, time, 256); `ends`: they end where the track does."""
        edged = whole.copy()
        edged[:, : self.context] = seconds[:, : self.context]
        if not ends:
            edged[:, -self.context :] = seconds[:, -self.context :]
        return edged


def _mfcc(audio: VideoAudio, first_s: float, frames: int) -> np.ndarray:
    """(4 * frames, 13) float32, of a track that begins at `first_s`; beyond the ends of the audio, of silence."""
    return track_mfcc(audio.part(first_s, track_samples(frames)), np.arange(frames))


def _windows(values: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """(row, ...) in windows: the full ones together, (window, length, ...), then the rows left over, (1, rest, ...)."""
    full = len(values) // length * length
    if full:
        yield values[:full].reshape(-1, length, *values.shape[1:])
    if full < len(values):
        yield values[full:][None]


def _joined(windows: np.ndarray) -> np.ndarray:
    """(window, length, ...) -> (window * length, ...)."""
    return windows.reshape(-1, *windows.shape[2:])


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """(n, column) -> the mean over `reach` rows on either side, at the ends over those that there are."""
    around = sliding_window_view(np.pad(values, ((reach, reach), (0, 0))), 2 * reach + 1, axis=0)
    steps = np.arange(len(values))
    there = np.minimum(steps, reach) + 1 + np.minimum(steps[::-1], reach)
    return around.sum(-1) / there[:, None].astype(values.dtype)
