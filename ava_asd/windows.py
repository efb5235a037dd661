"""The samples of a split with their audio and faces, read from what ava-extract stored, mapped into memory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ava_asd.config import Config
from ava_asd.layout import ANNOTATION_KEYS
from ava_asd.samples import FACES, Samples, read_samples, share, usable
from ava_asd.stores import Store, faces_digest, open_stores
from ava_asd.tracks import ROUNDING
from core.formats.ava import ANNOTATION_SUFFIX, annotation_files
from core.inputs.loading import Batch
from core.runtime.checks import check_finite
from core.runtime.errors import UserError

SPLITS = ("train", "valid", "test")  # "valid" is a share of the test samples
THREADS = 2  # that make batches


@dataclass
class WindowBatch(Batch):
    """Samples on their way to the device.

    Attributes:
        audio: (batch, 1, coefficient, vector) float32, normalised MFCCs.
        video: (batch, channel, frame, row, column) uint8.
        labels: (batch,) int64 classes.
    """

    audio: Tensor
    video: Tensor
    labels: Tensor


def scaled(video: Tensor) -> Tensor:
    """Faces as the networks take them: uint8 -> float32, 0 to 1."""
    return video.to(torch.float32).div_(255)


class Windows:
    """The samples of a split.

    "train" has those that the filters leave, "valid" and "test" a share (valid_keep_ratio, test_keep_ratio) of the test
    samples, the same at every time. Samples whose audio would reach beyond the video's are left out.

    Args:
        config: settings; annotation_type says which of the files is read.
        data: folder that the relative paths of the settings are under.
        split: one of `SPLITS`.
        seed: of the share.

    Attributes:
        video_id, entity_id: (window,) text.
        timestamp: (window,) float64, seconds, of the labelled face, which is the window's last.
        class_id: (window,) int64.
        label: (window,) text.
        first: (window,) int64, row of the window's first face in its video's table of faces.
        without_audio: how many samples were left out since their audio would reach beyond the video's.

    Raises:
        UserError: files are absent, were made with other settings, or leave no sample; one message for all videos.
    """

    def __init__(self, config: Config, data: str | Path, split: str, seed: int = 0):
        self.config, self.split = config, split
        data, of = Path(data), "train" if split == "train" else "test"
        samples = self._chosen(read_samples(config, data, of, config.annotation_type), np.random.default_rng(seed))
        videos = samples.table["video_id"].combine_chunks()
        names, code = np.unique(videos.indices.to_numpy(), return_inverse=True)
        self._stores = open_stores(config, data, of, [videos.dictionary[int(name)].as_py() for name in names])
        self._check_source(samples.made_of[FACES], config.path(data, ANNOTATION_KEYS[of]))
        time_s, first = samples.column("time_s"), samples.column("first").astype(np.int64)
        audio = self._audio_starts(code, time_s)
        length = np.array([store.mfccs.shape[1] for store in self._stores])
        heard = (audio >= 0) & (audio + config.audio_window <= length[code])
        self.without_audio = int(np.sum(~heard))
        if not heard.any():
            raise UserError(
                f"no {split} sample has {config.audio_window} vectors of audio before its time: the videos' audio is "
                "too short; lower mfcc_frame_size, or extract other videos"
            )
        self.video_id, self.entity_id = samples.column("video_id")[heard], samples.column("entity_id")[heard]
        self.label, self.class_id = samples.column("label")[heard], samples.classes(config)[heard]
        self.timestamp, self.first = time_s[heard], first[heard]
        self._code, self._audio = code[heard], audio[heard]

    def __len__(self) -> int:
        return len(self.class_id)

    def load(self, rows: Sequence[int] | np.ndarray) -> WindowBatch:
        """Some samples as a batch.

        Raises:
            UserError: an MFCC is not a finite number; the message names its sample and its file.
        """
        config = self.config
        audio = np.empty((len(rows), *config.audio_shape), np.float32)
        video = np.empty((len(rows), *config.video_shape), np.uint8)
        for position, row in enumerate(rows):
            store, first, begin = self._stores[self._code[row]], self.first[row], self._audio[row]
            audio[position, 0] = store.mfccs[:, begin : begin + config.audio_window]
            video[position] = store.crops[first : first + config.video_window].swapaxes(0, 1)
        check_finite(
            audio,
            lambda position: (
                f"{self.store(rows[position]).folder.mfccs}: the MFCCs of entity {self.entity_id[rows[position]]} at "
                f"{self.timestamp[rows[position]]} s"
            ),
            "delete the file and run 'ava-extract mfccs' again",
        )
        return WindowBatch(torch.from_numpy(audio), torch.from_numpy(video), torch.from_numpy(self.class_id[rows]))

    def __getitems__(self, keys: list[tuple[int, int]]) -> WindowBatch:
        """A batch of the keys (epoch, row); all epochs are the same."""
        return self.load([row for _, row in keys])

    def digest(self) -> str:
        """An identifier of the samples, their order, classes, faces and MFCCs: 16 hexadecimal digits."""
        parts = [self.timestamp, self.class_id, self.first, self._code]
        videos = [(store.folder.path.name, store.digest()) for store in self._stores]
        return hashlib.sha256(b"".join([repr(videos).encode(), *(part.tobytes() for part in parts)])).hexdigest()[:16]

    def store(self, row: int) -> Store:
        """What is stored of a sample's video."""
        return self._stores[self._code[row]]

    def _check_source(self, faces: Mapping[str, str | None], annotations: Path) -> None:
        """Check that samples are of the stored faces, and of the videos that are annotated.

        Args:
            faces: video id -> SHA-256 of the table of faces that its samples are from, of all videos of the split.
            annotations: folder of the split's; where it holds none any more, they are not asked for.
        """
        again = "'ava-extract annotations' again (and 'ava-subset', if you use it)"
        files = annotation_files(annotations) if any(annotations.glob(f"*{ANNOTATION_SUFFIX}")) else faces
        if other := files.keys() ^ faces.keys():
            raise UserError(
                f"{annotations} does not have the videos that the samples are of ({min(other)} for one is new, or "
                f"gone): run 'ava-extract videos', 'ava-extract mfccs' and {again}"
            )
        for folder in (store.folder for store in self._stores):
            if faces[folder.path.name] != faces_digest(folder):
                raise UserError(f"{folder.faces} holds other faces than those that the samples are of: run {again}")

    def _chosen(self, samples: Samples, generator: np.random.Generator) -> Samples:
        if self.split != "train":
            applied = self.split == "test" and self.config.annotation_type == "subset"  # by ava-subset
            ratio = 1.0 if applied else getattr(self.config, f"{self.split}_keep_ratio")
            return samples.take(share(len(samples), ratio, generator))
        rows = np.flatnonzero(usable(samples, self.config))
        if len(rows) == 0:
            raise UserError(
                f"the filters leave none of {len(samples):,} training samples: change filter_classes, "
                "remove_small_faces or small_face_threshold"
            )
        return samples.take(rows)

    def _audio_starts(self, code: np.ndarray, time_s: np.ndarray) -> np.ndarray:
        """The first MFCC vector of each sample, (sample,) int64, by the published rule.

        Vectors count from one window of audio after start_ts; those of a sample end before its time. The published code
        takes them to be `stride` apart; the audio drifts off the faces where that is no whole number of samples.
        """
        origin = np.array([store.start_s for store in self._stores])[code] + self.config.mfcc_window_size
        hop_s = np.array([store.hop_s for store in self._stores])[code]
        end = np.floor((time_s - origin) / hop_s + ROUNDING).astype(np.int64)
        return end - self.config.audio_window
