"""Wavs as every step keeps them, 16 kHz mono 16 bit: of a video, of an entity."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io.wavfile

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.formats import ava
from core.runtime import elsewhere
from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write, first_existing
from core.runtime.provenance import check_outputs

# Encoders drop up to some tens of milliseconds at a video's end; beyond this the audio is truncated.
MISSING_END_S = 1.0
# A wav is cut at int(time * 16000) by ours, TaoRuijie/TalkNet-ASD utils/tools.py, which others took over, and
# fuankarion/active-speakers-context data/slice_audio_tracks.py; pandas may read a time one unit in the last place off.
ROUNDING = 2  # samples, one at either end


def read_wav(path: str | Path) -> np.ndarray:
    """Memory-map a 16 kHz mono 16-bit wav: (samples,) int16.

    Raises:
        UserError: the file is absent, no wav, or of another rate, width or number of channels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no audio file {path}: run data/extract_audio_tracks.py and data/slice_audio_tracks.py")
    rate, samples = map_wav(path, "delete it and run the audio steps again")
    if rate != SAMPLE_RATE or samples.dtype != np.int16 or samples.ndim != 1:
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        raise UserError(
            f"{path} has {rate} Hz, {channels} channel(s), {samples.dtype}: expected {SAMPLE_RATE} Hz mono int16; "
            "make it with data/extract_audio_tracks.py and data/slice_audio_tracks.py"
        )
    return samples


def map_wav(path: Path, remedy: str) -> tuple[int, np.ndarray]:
    """Map a wav into memory: samples per second, and (sample,) or (sample, channel) of any type.

    Raises:
        MediaError: it is absent, damaged, or shorter than its header says.
    """
    try:
        with warnings.catch_warnings():
            # Of a file that ends too early, or of one with parts that no step writes.
            warnings.simplefilter("error", scipy.io.wavfile.WavFileWarning)
            rate, samples = scipy.io.wavfile.read(path, mmap=True)
            return int(rate), samples
    except Exception as error:  # damaged headers end in all kinds, ZeroDivisionError and UnboundLocalError too
        raise MediaError(f"{path} is not a readable wav ({error}): {remedy}") from error


def write_wav(path: str | Path, samples: np.ndarray) -> None:
    """Write (samples,) int16 as a 16 kHz mono wav, whole or not at all."""
    with atomic_write(path) as temporary:
        scipy.io.wavfile.write(temporary, SAMPLE_RATE, np.ascontiguousarray(samples, dtype=np.int16))


@dataclass(frozen=True)
class EntityAudio:
    """The part of an entity's wav that its rows are heard in.

    Attributes:
        path: of the wav.
        begin, end: samples of the wav at the first and the last row's time.
    """

    path: Path
    begin: int
    end: int

    def read(self) -> np.ndarray:
        """(sample,) int16, from the first row to the last; memory-mapped."""
        return read_wav(self.path)[self.begin : self.end]


def entity_wav(audio_dir: Path, video_id: str, entity_id: str) -> Path:
    """Where the wav of an entity is: `<entity_id>.wav`, or `<video_id>/<entity_id>.wav` as TalkNet and others cut."""
    ours = audio_dir / f"{entity_id}.wav"
    return ours if elsewhere.url_of(audio_dir) else first_existing(audio_dir / video_id / ours.name, ours)


def check_names(audio_dir: Path, rows: pd.DataFrame) -> None:
    """See that entities have audio, by a look at the names in its folder alone.

    Raises:
        UserError: some have none.
    """
    names = set(os.listdir(_there(audio_dir)))
    videos = _video_of_entity(rows)
    lacking = ~((videos.index + ".wav").isin(names) | videos.isin(names).to_numpy())
    if lacking.any():
        raise _no_audio(videos[lacking], len(videos), audio_dir)


def entity_audio(rows: pd.DataFrame, used: np.ndarray, audio_dir: Path) -> list[EntityAudio]:
    """The audio of each entity that has rows in use, in their order.

    A wav goes from the entity's first row to its last. Only a foreign one that is exactly as long as the rows that are
    not SPEAKING_NOT_AUDIBLE goes from the first to the last of those: the published slicing leaves the others out.

    Args:
        rows: the annotations of a split that the wavs were cut by (`ava.AUGMENTED_COLUMNS` and time_s).
        used: (row,) bool, those whose audio is wanted.
        audio_dir: `audio_dir/<split>`, see `entity_wav`; wavs that are elsewhere are fetched.

    Raises:
        MediaError: a wav does not arrive.
        UserError: the folder or a wav is absent or changed since it was cut, or a wav is of another length than its
            rows, begins after the first row in use or ends before the last; the message names the first such wav.
    """
    videos = _video_of_entity(rows[used])
    paths = {entity: elsewhere.bring(entity_wav(audio_dir, video, entity)) for entity, video in videos.items()}
    _there(audio_dir)
    lacking = [not path.is_file() for path in paths.values()]
    if any(lacking):
        raise _no_audio(videos[lacking], len(videos), audio_dir)
    ours = {
        video: check_outputs(audio_dir, video, [str(paths[entity].relative_to(audio_dir)) for entity in entities])
        for video, entities in videos.groupby(videos, sort=False).groups.items()
    }
    whole, audible = _spans(rows), _spans(rows[rows["label_id"] != ava.NOT_AUDIBLE_ID])
    audio = []
    for entity, (first, last) in _spans(rows[used]).items():
        path, (begin, end) = paths[entity], whole[entity]
        length, foreign = len(read_wav(path)), ours[videos[entity]] is None
        if foreign and entity in audible and abs(length - (audible[entity][1] - audible[entity][0])) <= ROUNDING:
            begin, end = audible[entity]
        longer = length - (end - begin)
        # A foreign wav that is a row shorter is one of other rows.
        lacking = SAMPLE_RATE // GRID_FPS - ROUNDING if foreign else int(MISSING_END_S * SAMPLE_RATE)
        if not -lacking <= longer <= ROUNDING:
            raise UserError(
                f"{path} is {abs(longer) / SAMPLE_RATE:.2f} s {'longer' if longer > 0 else 'shorter'} than the "
                f"{(end - begin) / SAMPLE_RATE:.2f} s from its entity's first row to the last: it was cut by other "
                "rows, so that what is heard when is not known; cut it with data/slice_audio_tracks.py by the csv that "
                "is used here, or use the csv that it was cut by"
            )
        if first < begin or last > end:
            raise UserError(
                f"{path} begins {(begin - whole[entity][0]) / SAMPLE_RATE:.2f} s after the first row of its entity and "
                f"ends {(whole[entity][1] - end) / SAMPLE_RATE:.2f} s before the last: it was cut without "
                "SPEAKING_NOT_AUDIBLE rows, as the published preparation does; cut it with data/slice_audio_tracks.py"
            )
        audio.append(EntityAudio(path, first - begin, last - begin))
    return audio


def _there(audio_dir: Path) -> Path:
    if not audio_dir.is_dir():
        raise UserError(f"no audio folder {audio_dir}: run data/slice_audio_tracks.py first")
    return audio_dir


def _no_audio(lacking: pd.Series, entities: int, audio_dir: Path) -> UserError:
    """Of the video ids of entities that lack audio."""
    return UserError(
        f"no audio of {len(lacking)} of {entities} entities in {audio_dir}, first {lacking.index[0]} of video "
        f"{lacking.iloc[0]}; run data/extract_audio_tracks.py and data/slice_audio_tracks.py, or remove the video from "
        "the csv"
    )


def _video_of_entity(rows: pd.DataFrame) -> pd.Series:
    """Video ids by entity id, in order."""
    return rows.drop_duplicates("entity_id").set_index("entity_id")["video_id"]


def _spans(rows: pd.DataFrame) -> dict[str, list[int]]:
    """Entity id -> samples at its first and last row's time, counted from the video's begin."""
    spans = rows.groupby("entity_id", sort=False)["time_s"].agg(["min", "max"]) * SAMPLE_RATE
    return dict(zip(spans.index, spans.astype(np.int64).to_numpy().tolist(), strict=True))
