"""A two-stream encoder on every row of a split, and on one face's crops as they come in."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from core.clip_utils import GRID_FPS, clip_window, run_lengths
from core.dataset import ClipDataset
from core.formats.feature_store import VideoFeatures
from core.formats.wav import SAMPLE_RATE
from core.inputs.loading import load_batches
from core.inputs.mfcc import batch_mfcc, clip_samples, fitted_length, mfcc_windows
from core.inputs.sampling import TrackBatches
from core.inputs.transforms import stack
from core.media.video_audio import VideoAudio

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

BATCH_SIZE = 16  # clips; fastest on a CPU


def encode_videos(
    encode: Encode,
    dataset: ClipDataset,
    rows: pd.DataFrame,
    device: torch.device,
    batch_size: int,
    threads: int = 0,
    feature_type: str = "float16",
    description: str = "",
) -> Iterator[VideoFeatures]:
    """The encoder's output for every row of a split, video by video.

    Args:
        encode: the network in evaluation: (audio, video) -> (logits, audio logits, video logits, features).
        dataset: clips around given rows of `rows`.
        rows: annotations, sorted by video, entity and time.
        device: where `encode` runs.
        batch_size: clips in the network at once.
        threads: loader threads.
        feature_type: NumPy's name of the type that features are kept in.
        description: what the progress bar says.
    """
    starts, lengths = run_lengths(rows["video_id"].to_numpy())
    batches = TrackBatches(dataset.track_starts, dataset.track_lengths, rows=8 * batch_size)
    waiting: list[list[np.ndarray]] = []
    with tqdm(total=len(rows), desc=description, unit=" faces", disable=None) as bar:
        video, given, held = 0, 0, 0
        for batch in load_batches(dataset, batches, threads, device):
            for window in torch.arange(len(batch.rows)).split(batch_size):
                audio = batch_mfcc(batch.sounds[0, window], batch.sound_lengths[0, window], dataset.mfcc_windows)
                outputs = encode(audio, stack(batch.frames[batch.windows[window]]))
                waiting.append([output.float().cpu().numpy() for output in outputs])
                held += len(window)
                bar.update(len(window))
            while video < len(starts) and given + held >= starts[video] + lengths[video]:
                av, audio_, video_, features = (np.concatenate(part) for part in zip(*waiting, strict=True))
                own = int(lengths[video])
                yield VideoFeatures(
                    rows.iloc[given : given + own],
                    av[:own],
                    audio_[:own],
                    video_[:own],
                    features[:own].astype(feature_type),
                )
                waiting = [[av[own:], audio_[own:], video_[own:], features[own:]]]
                video, given, held = video + 1, given + own, held - own


class ClipScorer:
    """Scores each crop of a face by the clip around it and the clip's sound, prepared as the staged pipeline does.

    Args:
        encode: the network in evaluation: (audio, video) -> (logits, audio logits, video logits, features).
        clip_length: frames of a clip, odd.
        sound: of the whole video.
        first_s: time of the first crop, seconds; the others follow at 25 a second.
        device: where `encode` runs.
        with_features: keep the features, 2 kB a crop.
    """

    def __init__(
        self,
        encode: Encode,
        clip_length: int,
        sound: VideoAudio,
        first_s: float,
        device: torch.device,
        *,
        with_features: bool = True,
    ):
        self.encode, self.clip_length, self.sound, self.first_s = encode, clip_length, sound, first_s
        self.device, self.with_features = device, with_features
        self.crops: list[np.ndarray] = []  # those that clips to come still need
        self.forgotten = 0  # how many came before them
        self.scored = 0
        self.logits: list[np.ndarray] = []
        self.features: list[np.ndarray] = []

    @property
    def count(self) -> int:
        """How many crops have come."""
        return self.forgotten + len(self.crops)

    def push(self, crop: np.ndarray) -> None:
        """Take the next crop, (144, 144, [r, g, b]) uint8."""
        self.crops.append(crop)
        if self.count - self.clip_length // 2 - self.scored >= BATCH_SIZE:
            self._score(BATCH_SIZE)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (crop, [not speaking, speaking]) float32 and features (crop, feature) float16; ends the scorer.

        Without features their array has no rows.
        """
        while self.scored < self.count:
            self._score(min(BATCH_SIZE, self.count - self.scored))
        return np.concatenate(self.logits), np.concatenate(self.features or [np.empty((0, 0), np.float16)])

    def _score(self, clips: int) -> None:
        """Score the next clips; at the track's ends they repeat its first and last crop."""
        centres = np.arange(self.scored, self.scored + clips)
        windows = clip_window(centres, np.int64(0), np.int64(self.count - 1), self.clip_length)
        frames = torch.from_numpy(np.stack(self.crops)).to(self.device)
        video = stack(frames[torch.from_numpy(windows - self.forgotten).to(self.device)])
        sounds, lengths = self._sounds(windows)
        audio = batch_mfcc(
            sounds.to(self.device), lengths.to(self.device), mfcc_windows(fitted_length(self.clip_length))
        )
        logits, _, _, features = self.encode(audio, video)
        self.logits.append(logits.float().cpu().numpy())
        if self.with_features:
            self.features.append(features.cpu().numpy().astype(np.float16))
        self.scored += clips
        needless = max(0, self.scored - self.clip_length // 2 - self.forgotten)
        del self.crops[:needless]
        self.forgotten += needless

    def _sounds(self, windows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The clips' sound, (clip, sample) int16, zero after each one's end, and how long each is."""
        sounds = np.zeros((len(windows), fitted_length(self.clip_length) + 2), np.int16)
        lengths = np.zeros(len(windows), np.int64)
        for number, (first, last) in enumerate(windows[:, [0, -1]].tolist()):
            seconds = (last - first) / GRID_FPS
            part = self.sound.part(self.first_s + first / GRID_FPS, round(seconds * SAMPLE_RATE))
            samples = clip_samples(part, 0.0, seconds, self.clip_length)
            sounds[number, : len(samples)] = samples
            lengths[number] = len(samples)
        return torch.from_numpy(sounds), torch.from_numpy(lengths)
