"""A two-stream encoder on one face's crops as they come in: clips around every crop, in batches."""

import numpy as np
import torch

from core.audio import SAMPLE_RATE, batch_mfcc, clip_samples, fitted_length, mfcc_windows
from core.clip_utils import clip_window
from core.following import GRID_FPS
from core.forwarding import Encode
from core.sound_track import SoundTrack
from core.transforms import stack

BATCH_SIZE = 16  # clips; fastest on a CPU


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
        sound: SoundTrack,
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
