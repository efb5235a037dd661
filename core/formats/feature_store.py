"""The feature store: an encoder's output for every annotated face, one Arrow file a video, memory-mapped.

`<video_id>.arrow` (Arrow IPC file), rows sorted by entity then time: entity_id, frame_timestamp (text), label_id
(0 NOT_SPEAKING, 1 SPEAKING_AUDIBLE, 2 SPEAKING_NOT_AUDIBLE), logits (2), audio_logits (2; absent where the encoder has
no audio head), video_logits (2), in_step (3; absent where the encoder is a user's own), heard (13), features
(fixed-size list, float16 by default). The published CSV form is read and written as well; its labels are 0.0 and 1.0,
where SPEAKING_NOT_AUDIBLE is 0.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from core.clip_utils import COEFFICIENTS
from core.formats import ava
from core.formats.arrow_file import fixed_lists, is_text, is_vectors, lists_of, open_arrow
from core.formats.feature_csv import read_feature_csv, write_feature_csv
from core.formats.official_csv import key_text
from core.runtime import elsewhere
from core.runtime.checks import check_finite
from core.runtime.errors import UserError
from core.runtime.files import PART, atomic_write
from core.runtime.provenance import Files, check_outputs, checksums, declared, digest_of, read_record

ROWS_PER_BATCH = 16384
FORMATS = ("arrow", "csv")
HEADS = ("logits", "audio_logits", "video_logits", "in_step", "heard")
COLUMNS = {
    "entity_id": is_text,
    "frame_timestamp": is_text,
    "label_id": pa.types.is_int8,
    "logits": lists_of(2),
    "features": is_vectors,
}
OPTIONAL = {
    "audio_logits": lists_of(2),
    "video_logits": lists_of(2),
    "in_step": lists_of(3),
    "heard": lists_of(COEFFICIENTS),
}
REMEDY = "delete this file of features and run STE_forward.py again"
STEP = "features"  # of the records in a folder of features (core.runtime.provenance)
# What records keep of the encoder.
ENCODER_KEYS = ("weights", "backbone", "clip_length", "crop_size", "precision", "feature_type", "format")


@dataclass(frozen=True)
class VideoFeatures:
    """The encoder's output for one video, rows sorted by entity and time.

    Attributes:
        rows: annotations (`ava.AUGMENTED_COLUMNS`), (row).
        logits, audio_logits, video_logits: (row, [not speaking, speaking]) float32; audio_logits is None where the
            encoder has no audio head.
        features: (row, feature) float16 or float32.
        in_step: (row, [mean, maximum, correlation]) float32, see `core.inference.voices`; None where the encoder is a
            network of the user's own.
        heard: MFCCs of the face's time, (row, 13) float32, see `core.inputs.mfcc.track_heard`; None where
            nothing was heard.
    """

    rows: pd.DataFrame
    logits: np.ndarray
    audio_logits: np.ndarray | None
    video_logits: np.ndarray
    features: np.ndarray
    in_step: np.ndarray | None = None
    heard: np.ndarray | None = None

    @property
    def video_id(self) -> str:
        return self.rows["video_id"].iloc[0]


def write_features(folder: str | Path, video: VideoFeatures, form: str = "arrow") -> None:
    """Write one video's features to `<video_id>.arrow` (or .csv), whole or not at all.

    Args:
        folder: of the split.
        video: what to write.
        form: "arrow", or "csv" for the published form (about five times as large).

    Raises:
        UserError: a number is not finite; the message names its row.
    """
    for name in (*HEADS, "features"):
        if (values := getattr(video, name)) is not None:
            check_finite(
                values,
                lambda row, name=name: f"{video.video_id}: the {name} of {key_text(video.rows.iloc[row])}",
                "the weights are not finite or too large, as after a training that diverged; forward with others",
            )
    if form == "csv":
        write_feature_csv(Path(folder) / f"{video.video_id}.csv", video.rows, video.logits, video.features)
        return
    heads = {head: getattr(video, head) for head in HEADS if getattr(video, head) is not None}
    table = pa.table(
        {
            "entity_id": pa.array(video.rows["entity_id"].to_numpy(), pa.string()).dictionary_encode(),
            "frame_timestamp": pa.array(video.rows["frame_timestamp"].to_numpy(), pa.string()),
            "label_id": pa.array(video.rows["label_id"].to_numpy(), pa.int8()),
            **{head: fixed_lists(values.astype(np.float32)) for head, values in heads.items()},
            "features": fixed_lists(video.features),
        }
    )
    with (
        atomic_write(Path(folder) / f"{video.video_id}.arrow") as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=ROWS_PER_BATCH)


@dataclass(frozen=True)
class VideoFile:
    """The features of one video, not opened.

    Attributes:
        path: of the file.
        encoder: what made it; empty where there is no record.
        left_out: annotated rows without features, for want of crops; 0 where there is no record.
    """

    path: Path
    encoder: Mapping[str, Any]
    left_out: int

    @property
    def sources(self) -> Files:
        """The features, as something that scores are made of."""
        return Files(self.path.parent, [self.path.name], self.path.stem)


def videos_of(source: Path) -> list[str]:
    """The ids of the videos of a source of features, see `FeatureStore`; no file of features is looked at.

    Raises:
        UserError: there are none.
    """
    folder, pattern = _folder_and_pattern(source)
    videos = declared(folder, STEP)
    if videos is None:
        paths = [path for path in elsewhere.files_in(folder) if path.suffix[1:] in FORMATS and path.match(pattern)]
        videos = sorted({path.stem for path in paths if not path.name.startswith(PART)})
    if not videos:
        raise UserError(
            f"no features {source}: expected a folder of <video_id>.arrow (or .csv) files or a pattern of such files; "
            "run STE_forward.py first"
        )
    return videos


def find_features(source: Path, video_id: str) -> VideoFile:
    """The features of one video of a source.

    Raises:
        UserError: there are none, they are not as they were written, or there are two.
    """
    folder, pattern = _folder_and_pattern(source)
    record = read_record(folder, video_id)
    names = record["outputs"] if record else [f"{video_id}.{form}" for form in FORMATS]
    paths = [path for name in names if (path := folder / name).match(pattern) and (record or elsewhere.is_file(path))]
    if not paths:
        raise UserError(f"no features of video {video_id} in {source}: run STE_forward.py again, to its end")
    if len(paths) > 1:
        raise UserError(f"{paths[0]} and {paths[1]} are features of one video: remove one of them")
    if record is None:
        return VideoFile(paths[0], {}, 0)
    check_outputs(folder, video_id, names)
    encoder = {key: record["made_of"].get(key) for key in ENCODER_KEYS}
    return VideoFile(paths[0], encoder, record["made_of"].get("left_out", 0))


def check_encoders(folder: Path, encoders: Mapping[str, Mapping[str, Any]]) -> None:
    """See that the features of videos were made by one encoder, as far as there are records.

    Args:
        folder: of the features.
        encoders: video id -> `VideoFile.encoder`.

    Raises:
        UserError: they were made by several.
    """
    known = {video_id: encoder for video_id, encoder in encoders.items() if encoder}
    first = next(iter(known), None)
    for video_id, encoder in known.items():
        for key in ENCODER_KEYS:
            if encoder[key] != known[first][key]:
                raise UserError(
                    f"{folder} mixes features of two encoders: {key} is {known[first][key]} for video {first} and "
                    f"{encoder[key]} for video {video_id}; run STE_forward.py again, to its end"
                )


class FeatureStore:
    """The features of a split, opened without reading them.

    Where STE_forward.py wrote the folder, the videos are those of the annotations that it was last run with, whatever
    others the folder holds; otherwise they are all that it holds.

    Args:
        folder: of `<video_id>.arrow` files, or of CSV files in the published form (these are read into memory); or a
            pattern of such files in a folder, as the published configuration has it: "features/train/*.csv". Files of
            a folder that is elsewhere are fetched.
        only: the one video that is wanted; None for all.

    Attributes:
        videos: video id -> its rows, a slice.
        entities: (row,) int64, equal for rows of one entity, contiguous.
        entity_ids: (row,) entity id.
        timestamps: (row,) text.
        times_s: (row,) float64.
        time_steps: (row,) int64, equal for rows of one video and time.
        labels: (row,) int64, 1 where the face is heard speaking.
        logits, audio_logits, video_logits: (row, 2) float32; the last two are None where the store has none.
        in_step: (row, 3) float32, likewise.
        heard: (row, 13) float32, likewise.
        feature_size: numbers in a feature vector.
        encoder: what made the features (weights by their SHA-256, clip length, ...); empty where there is no record.
        left_out: video id -> how many annotated rows have no features, for want of crops; 0 where there is no record.

    Raises:
        UserError: the folder is absent, empty or not finished, a file is damaged, unsorted or of another feature size,
            a logit is not a finite number (for features `gather` finds it), a video has two files, or several weights
            or settings were used.
    """

    def __init__(self, folder: str | Path, only: str | None = None):
        source = Path(folder)
        self.folder = folder = _folder_and_pattern(source)[0]
        videos = {name: find_features(source, name) for name in (videos_of(source) if only is None else [only])}
        encoders = {video_id: video.encoder for video_id, video in videos.items()}
        check_encoders(folder, encoders)
        self.encoder = next(filter(None, encoders.values()), {})
        self.left_out = {video_id: video.left_out for video_id, video in videos.items()}
        self._sources = {video_id: video.sources for video_id, video in videos.items()}
        paths = [video.path for video in videos.values()]
        tables = [_open(path) for path in paths]
        sizes = {table.schema.field("features").type.list_size for table in tables}
        if len(sizes) > 1:
            raise UserError(f"{folder} mixes features of sizes {sorted(sizes)}: forward all videos with one encoder")
        self.feature_size = sizes.pop()
        lengths = [table.num_rows for table in tables]
        ends = np.cumsum(lengths).tolist()
        self.videos = {p.stem: slice(end - n, end) for p, n, end in zip(paths, lengths, ends, strict=True)}
        self.entity_ids = _text([table["entity_id"] for table in tables])
        self.timestamps = _text([table["frame_timestamp"] for table in tables])
        label_ids = np.concatenate([table["label_id"].to_numpy() for table in tables])
        if not np.isin(label_ids, list(ava.LABEL_IDS.values())).all():
            raise UserError(f"{folder}: a label_id is none of 0 to 2; {REMEDY}")
        self.labels = (label_ids == ava.SPEAKING_ID).astype(np.int64)
        self.entities, self.time_steps = self._group(tables, np.repeat(np.arange(len(tables)), lengths))
        # Mapped anew and not read: the pages that were read for the other columns are released.
        mapped = [_open(path) if path.suffix == ".arrow" else table for path, table in zip(paths, tables, strict=True)]
        self._chunks = [_matrix(chunk) for table in mapped for chunk in table["features"].chunks]
        self._chunk_starts = np.concatenate([[0], np.cumsum([len(chunk) for chunk in self._chunks])])
        for head in HEADS:
            there = all(head in table.column_names for table in tables)
            values = [_matrix(chunk) for table in tables for chunk in table[head].chunks] if there else None
            setattr(self, head, np.concatenate(values) if values else None)
            if values:
                self._check_finite(getattr(self, head), head, np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Feature vectors of some rows: (n,) int64, ascending -> (n, feature) float16 or float32, as stored.

        Raises:
            UserError: a feature is not a finite number; the message names its row and its file.
        """
        out = np.empty((len(rows), self.feature_size), self._chunks[0].dtype)
        bounds = np.searchsorted(rows, self._chunk_starts)
        present = np.flatnonzero(bounds[1:] > bounds[:-1])
        local = rows - np.repeat(self._chunk_starts[:-1], np.diff(bounds))
        for number, begin, end in np.stack([present, bounds[present], bounds[present + 1]], axis=1).tolist():
            # "raise", the default, would copy twice
            self._chunks[number].take(local[begin:end], axis=0, out=out[begin:end], mode="clip")
        self._check_finite(out, "features", rows)
        return out

    def _check_finite(self, values: np.ndarray, what: str, rows: np.ndarray) -> None:
        """Refuse values of some rows, (n, column), that are not finite."""

        def name(number: int) -> str:
            row = int(rows[number])
            video_id = next(video_id for video_id, own in self.videos.items() if own.start <= row < own.stop)
            key = key_text({"entity_id": self.entity_ids[row], "frame_timestamp": self.timestamps[row]})
            return f"{self.folder}, video {video_id}: the {what} of {key}"

        check_finite(values, name, "the weights were those of a training that diverged; forward with others")

    def fingerprint(self) -> str:
        """SHA-256 of all features."""
        sums = {video_id: checksums(files) for video_id, files in self._sources.items()}
        return digest_of(sums, [sum_ for one in sums.values() for sum_ in one.values()])

    def _group(self, tables: list[pa.Table], video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers that are equal for rows of one entity, and for rows of one video and time."""
        entity = pd.factorize(self.entity_ids)[0].astype(np.int64)
        try:
            time_s = np.concatenate([pc.cast(table["frame_timestamp"], pa.float64()).to_numpy() for table in tables])
        except pa.ArrowInvalid as error:
            raise UserError(f"{self.folder}: a frame_timestamp is no number ({error}); {REMEDY}") from error
        if not np.isfinite(time_s).all():
            raise UserError(f"{self.folder}: a frame_timestamp is not finite; {REMEDY}")
        same_track = (entity[1:] == entity[:-1]) & (video[1:] == video[:-1])
        runs = 1 + np.count_nonzero(~same_track)
        if runs != entity.max() + 1 or np.any(same_track & (np.diff(time_s) <= 0)):
            raise UserError(
                f"{self.folder}: rows are not sorted by entity and time, or an entity is in two videos; "
                "make the features with STE_forward.py"
            )
        self.times_s = time_s
        _, time_number = np.unique(time_s, return_inverse=True)
        time_step = video * (time_number.max() + 1) + time_number
        return entity, np.unique(time_step, return_inverse=True)[1]


def _folder_and_pattern(source: Path) -> tuple[Path, str]:
    """The folder of a source, which elsewhere is no pattern, and the pattern of its files."""
    return (source, "*") if elsewhere.url_of(source) or source.is_dir() else (source.parent, source.name)


def _open(path: Path) -> pa.Table:
    elsewhere.bring(path)
    return read_feature_csv(path) if path.suffix == ".csv" else open_arrow(path, COLUMNS, REMEDY, OPTIONAL)


def _text(columns: list[pa.ChunkedArray]) -> np.ndarray:
    """Text columns as one object array; dictionary columns share one string object for equal values."""
    return np.concatenate([column.to_pandas().to_numpy(dtype=object) for column in columns])


def _matrix(chunk: pa.FixedSizeListArray) -> np.ndarray:
    """A view of a fixed-size list chunk as (row, column), without copying."""
    width = chunk.type.list_size
    return chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width)
