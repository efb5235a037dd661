"""A two-stream encoder on every row of a split, and on one face's crops as they arrive."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from core.clip_utils import GRID_FPS, SAMPLE_RATE, clip_window, run_lengths
from core.dataset import ClipDataset
from core.formats.feature_store import VideoFeatures
from core.inference.tracks import Gives
from core.inference.videos import Outputs, by_video
from core.inference.voices import in_step
from core.inputs.clip_mfcc import clip_heard, clip_mfcc, clip_samples, fitted_length, join_clips, mfcc_windows
from core.inputs.loading import load_batches
from core.inputs.sampling import row_batches
from core.inputs.shots import told
from core.inputs.transforms import stack
from core.media.video_audio import VideoAudio

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
Heads = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

BATCH_SIZE = 16  # clips; fastest on a CPU


def encode_videos(
    encode: Encode,
    dataset: ClipDataset,
    videos: Collection[str],
    *,
    device: torch.device,
    batch_size: int,
    heads: Heads | None = None,
    threads: int = 0,
    feature_type: str = "float16",
    description: str = "",
) -> Iterator[VideoFeatures]:
    """The encoder's output for every row of some videos of a split, video by video.

    Args:
        encode: the network in evaluation: (audio, video) -> (logits, audio logits, video logits, features).
        dataset: clips around given rows.
        videos: ids of those that are wanted.
        device: where `encode` runs.
        batch_size: clips in the network at once.
        heads: its last layers, see `TwoStreamResNet.heads`; None where it is a network of the user's own.
        threads: loader threads.
        feature_type: NumPy's name of the type that features are kept in.
        description: label of the progress bar.
    """
    wanted = dataset.rows["video_id"].isin(videos).to_numpy()
    rows = np.flatnonzero(wanted)

    def outputs() -> Iterator[Outputs]:
        batches = row_batches(dataset.lengths[wanted[dataset.starts]], rows=8 * batch_size)
        batches = ([(epoch, int(rows[number])) for epoch, number in batch] for batch in batches)
        for batch in load_batches(dataset, batches, threads, device):
            for clips in torch.arange(len(batch.rows)).split(batch_size):
                audio = clip_mfcc(batch.audio[0, clips], batch.audio_lengths[0, clips], dataset.mfcc_windows)
                *logits, features = encode(audio, stack(batch.frames[batch.windows[clips]]))
                outputs = (*logits, None, clip_heard(audio), features)
                yield tuple(part if part is None else part.float().cpu().numpy() for part in outputs)

    videos = by_video(dataset.rows[wanted], outputs(), feature_type=feature_type, description=description)
    for video in videos:
        yield video if heads is None else replace(video, in_step=_in_step(heads, video, device))  # of whole tracks


def _in_step(heads: Heads, video: VideoFeatures, device: torch.device) -> np.ndarray:
    """What `VideoFeatures.in_step` holds."""
    starts, lengths = run_lengths(video.rows["entity_id"].to_numpy())
    tracks = [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    parts = (video.features, video.video_logits, video.heard[:, 0])
    return np.concatenate([_in_step_track(heads, *(part[own] for part in parts), device) for own in tracks])


def _in_step_track(
    heads: Heads, features: np.ndarray, video_logits: np.ndarray, loudness: np.ndarray, device: torch.device
) -> np.ndarray:
    """`in_step` of one track's features, (time, feature), whose first half is the audio stream's."""

    @torch.inference_mode()
    def score(audio: np.ndarray, video: np.ndarray) -> np.ndarray:
        embeddings = (torch.from_numpy(part).to(device).flatten(0, 1) for part in (audio, video))
        return heads(*embeddings)[0].unflatten(0, audio.shape[:2]).float().cpu().numpy()

    audio, video = np.split(features.astype(np.float32), 2, axis=1)
    return in_step(score, audio, video, video_logits, loudness)


class ClipScorer:
    """Scores each crop of a face by the clip around it and the clip's audio, prepared as the staged pipeline does.

    Args:
        encode: the network in evaluation: (audio, video) -> (logits, audio logits, video logits, features).
        heads: its last layers, see `TwoStreamResNet.heads`.
        clip_length: frames of a clip, odd.
        audio: of the whole video.
        first_s: time of the first crop, seconds; the others follow at 25 a second.
        device: where `encode` runs.
        gives: what `finish` returns besides logits; for either the features are kept, 2 kB a crop.
    """

    def __init__(
        self,
        encode: Encode,
        heads: Heads,
        clip_length: int,
        audio: VideoAudio,
        first_s: float,
        *,
        device: torch.device,
        gives: Gives = "features",
    ):
        self.heads, self.gives = heads, gives
        self.encode, self.clip_length, self.audio, self.first_s = encode, clip_length, audio, first_s
        self.device = device
        self.crops: list[np.ndarray] = []  # those that later clips still need
        self.forgotten = 0  # how many arrived before them
        self.scored = 0  # how many crops have their logits
        self.logits: list[np.ndarray] = []
        self.video_logits: list[np.ndarray] = []
        self.heard: list[np.ndarray] = []
        self.features: list[np.ndarray] = []

    @property
    def count(self) -> int:
        """How many crops have arrived."""
        return self.forgotten + len(self.crops)

    def push(self, crop: np.ndarray) -> None:
        """Take the next crop, (144, 144, [r, g, b]) uint8."""
        self.crops.append(crop)
        if self.count - self.clip_length // 2 - self.scored >= BATCH_SIZE:
            self._score(BATCH_SIZE)

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (crop, [not speaking, speaking]) float32, and features (crop, feature) float16 or what `told` gives,
        float32; ends the scorer.

        There must have been a crop.
        """
        while self.scored < self.count:
            self._score(min(BATCH_SIZE, self.count - self.scored))
        logits = np.concatenate(self.logits)
        if self.gives is None:
            return logits, None
        features = np.concatenate(self.features)
        if self.gives == "features":
            return logits, features
        video_logits, heard = np.concatenate(self.video_logits), np.concatenate(self.heard)
        fits = _in_step_track(self.heads, features, video_logits, heard[:, 0], self.device)
        return logits, told(logits, video_logits, fits, heard)

    def _score(self, clips: int) -> None:
        """Score the next clips; at the track's ends they repeat its first and last crop."""
        centres = np.arange(self.scored, self.scored + clips)
        windows = clip_window(centres, np.int64(0), np.int64(self.count - 1), self.clip_length)
        frames = torch.from_numpy(np.stack(self.crops)).to(self.device)
        video = stack(frames[torch.from_numpy(windows - self.forgotten).to(self.device)])
        samples, lengths = (part.to(self.device) for part in self._samples(windows))
        mfcc = clip_mfcc(samples, lengths, mfcc_windows(fitted_length(self.clip_length)))
        logits, _, video_logits, features = self.encode(mfcc, video)
        self.logits.append(logits.float().cpu().numpy())
        self.video_logits.append(video_logits.float().cpu().numpy())
        self.heard.append(clip_heard(mfcc).cpu().numpy())
        if self.gives:
            self.features.append(features.cpu().numpy().astype(np.float16))
        self.scored += clips
        needless = max(0, self.scored - self.clip_length // 2 - self.forgotten)
        del self.crops[:needless]
        self.forgotten += needless

    def _samples(self, windows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The clips' samples and how many each has, as `join_clips` gives them."""
        clips = []
        for first, last in windows[:, [0, -1]].tolist():
            seconds = (last - first) / GRID_FPS
            part = self.audio.part(self.first_s + first / GRID_FPS, round(seconds * SAMPLE_RATE))
            clips.append(clip_samples(part, 0.0, seconds, self.clip_length))
        return join_clips(clips, self.clip_length)
