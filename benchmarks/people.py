"""How well persons are told apart: pairwise F1 on annotated and on detected tracks, within and across videos.

    python benchmarks/people.py DIR                    # DIR/videos/{train,val}, DIR/annotations/people_{train,val}.csv
    python benchmarks/people.py DIR --embedder dlib    # needs pip install -e '.[people]'
    python benchmarks/people.py DIR --cache WEIGHTS --detected

The largest distance of one person is chosen on train: the middle of those of the best F1, within videos, and once more
across them. F1 on val is computed once, with these. People are those of csvs with `video_id,entity_id,person`; two
faces seen at once are two people. Pairs within a video are those of its tracks, across videos all pairs of tracks.

Tracks are told apart by their best frames (`core.people.portraits`), of every sixth one. On val they are also embedded
from worse ones, shrunk until the face is so many pixels high and enlarged again, or blurred. Pairs that have a face
below 60 px, or one that is turned away, are counted apart, too. --detected goes on with detect.py's own tracks.
"""

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.boxes import intersection_over_union
from core.detection import ActiveSpeakerDetector
from core.detection.faces import FaceDetector, YuNet
from core.detection.results import DetectedVideo
from core.download.cache import cached
from core.download.weights_catalogue import YUNET
from core.evaluation.official import Groundtruth, read_groundtruth
from core.formats import ava
from core.formats.ava import SPLITS
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_files import find_video
from core.people.agreement import Pairs
from core.people.clustering import group_tracks
from core.people.embedding import FaceEmbedder, find_embedder, normalised
from core.people.evaluation import People, PersonTracks, read_people, true_persons
from core.people.portraits import Portraits, frontality
from core.runtime.errors import UserError, exits_cleanly

EMBEDDERS = ("sface", "dlib")
EVERY = 6  # frames
MIN_OVERLAP = 0.5  # of a detected face and an annotated one
SMALL_PX = 60
TURNED = 0.7  # frontality of a face below which it counts as turned away
DISTANCES = np.arange(0.005, 1.5, 0.005)
APART = 10**9  # frames between two videos


@dataclass(frozen=True)
class Track:
    """A face track.

    Attributes:
        video: its id.
        person: in truth.
        frames: first and last.
        height_px: median of its faces.
        frontality: of its best frames, mean, 0 to 1.
        embedding: None where no frame shows the face well enough.
    """

    video: str
    person: str
    frames: tuple[int, int]
    height_px: float
    frontality: float
    embedding: np.ndarray | None


class Dlib:
    """The face embeddings of dlib (King, "Dlib-ml: A Machine Learning Toolkit", JMLR 2009), for comparison."""

    name = "dlib"
    max_distance = 0.05  # chosen by this benchmark

    def __init__(self) -> None:
        found = importlib.util.find_spec("face_recognition_models")
        if found is None or importlib.util.find_spec("dlib") is None:
            raise UserError("--embedder dlib needs dlib-bin and face-recognition-models: pip install -e '.[people]'")
        import dlib

        folder = Path(found.origin).parent / "models"
        self.dlib = dlib
        self.landmarks = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self.network = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def align(self, pixels: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """See `core.people.embedding.FaceEmbedder`; the landmarks are dlib's own."""
        rgb = np.ascontiguousarray(pixels[:, :, ::-1])
        shape = self.landmarks(rgb, self.dlib.rectangle(*np.rint(box).astype(int).tolist()))
        return np.ascontiguousarray(self.dlib.get_face_chip(rgb, shape, size=150, padding=0.25)[:, :, ::-1])

    def embed(self, face: np.ndarray) -> np.ndarray:
        """See `core.people.embedding.FaceEmbedder`."""
        return normalised(np.array(self.network.compute_face_descriptor(np.ascontiguousarray(face[:, :, ::-1]))))


def embedder_named(name: str, cache: Path | None) -> FaceEmbedder:
    """One of `EMBEDDERS`; cache: folder with SFace's weights, None for the user's."""
    return Dlib() if name == "dlib" else find_embedder(True, cache)[0]


@dataclass(frozen=True)
class Worse:
    """An embedder that is shown worse frames.

    Attributes:
        embedder: the embedder.
        spoil: (height, width, [b, g, r]) uint8 and the face's height in pixels -> the same shape.
    """

    embedder: FaceEmbedder
    spoil: Callable[[np.ndarray, float], np.ndarray]

    def align(self, pixels: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return self.embedder.align(self.spoil(pixels, float(box[3] - box[1])), box, landmarks)

    def embed(self, face: np.ndarray) -> np.ndarray:
        return self.embedder.embed(face)


def shrunk(pixels: np.ndarray, height_px: float, to_px: float) -> np.ndarray:
    """As if the face had been `to_px` high."""
    if height_px <= to_px:
        return pixels
    size = [max(1, round(side * to_px / height_px)) for side in pixels.shape[1::-1]]
    return cv2.resize(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.shape[1::-1])


def blurred(pixels: np.ndarray, height_px: float, share: float) -> np.ndarray:
    """As if it were out of focus: sigma is a share of the face's height."""
    return cv2.GaussianBlur(pixels, (0, 0), share * height_px)


WORSE = {
    **{f"faces shrunk to {px} px": functools.partial(shrunk, to_px=px) for px in (60, 40, 24)},
    **{f"blurred by {share:.0%} of the height": functools.partial(blurred, share=share) for share in (0.03, 0.06)},
}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="data set in AVA layout")
    parser.add_argument("--embedder", choices=EMBEDDERS, default=EMBEDDERS[0])
    parser.add_argument("--detected", action="store_true", help="also on detected tracks")
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    arguments = parser.parse_args(argv)
    embedder = embedder_named(arguments.embedder, arguments.cache)
    detector = YuNet(cached(YUNET, arguments.cache))
    truths = {}
    for split in SPLITS:
        folder = arguments.data / "annotations"
        groundtruth = read_groundtruth([folder / split])
        truths[split] = groundtruth, read_people(folder / f"people_{split}.csv", groundtruth)
    worse = {name: Worse(embedder, spoil) for name, spoil in WORSE.items()}
    train = annotated_tracks(arguments.data, "train", *truths["train"], detector, {"": embedder})[""]
    val = annotated_tracks(arguments.data, "val", *truths["val"], detector, {"": embedder, **worse})
    chosen = {across: best_distance(train, across) for across in (False, True)}
    print(f"{embedder.name}, distances chosen on train: within videos {chosen[False]}, across {chosen[True]}")
    print("| tracks | within a video: F1 | precision | recall | pairs | across videos: F1 | pairs |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    row("train, annotated", train, chosen)
    row("val, annotated", val[""], chosen)
    row(f"val, pairs with a face below {SMALL_PX} px", val[""], chosen, lambda track: track.height_px < SMALL_PX)
    row("val, pairs with a face turned away", val[""], chosen, lambda track: track.frontality < TURNED)
    for name in worse:
        row(f"val, {name}", val[name], chosen)
    if arguments.detected:
        active = ActiveSpeakerDetector(people=embedder, context="none", cache=arguments.cache)
        for split in SPLITS:
            row(f"{split}, detected", detected_tracks(arguments.data, split, *truths[split], active), chosen)


def annotated_tracks(
    data: Path,
    split: str,
    groundtruth: Groundtruth,
    people: People,
    detector: FaceDetector,
    embedders: dict[str, FaceEmbedder],
) -> dict[str, list[Track]]:
    """Name of an embedder -> the annotated tracks of a split, embedded by it."""
    tracks: dict[str, list[Track]] = {name: [] for name in embedders}
    for video_id in groundtruth.video_ids:
        rows = ava.read_annotations(data / "annotations" / split / f"{video_id}{ava.ANNOTATION_SUFFIX}")
        with MediaFile(find_video(data / "videos" / split, video_id)) as media:
            entities, portraits, facing = {}, {}, {}
            times_s = rows["frame_timestamp"].astype(float).to_numpy()
            boxes = ava.boxes(rows) * np.tile([media.info.width, media.info.height], 2)
            for number, frame in enumerate(read_frames(media)):
                here = np.flatnonzero(np.abs(times_s - frame.time_s) < 0.5 / media.info.fps)
                for row in here:
                    entities.setdefault(rows["entity_id"].iloc[row], []).append((number, boxes[row]))
                if number % EVERY or not len(here):
                    continue
                for row, face in matched(boxes[here], detector(frame.bgr())):
                    entity = rows["entity_id"].iloc[here[row]]
                    facing.setdefault(entity, []).append(frontality(face))
                    kept = portraits.setdefault(entity, {name: Portraits(one) for name, one in embedders.items()})
                    for one in kept.values():
                        one.add(frame, face)
        for entity, shown in entities.items():
            numbers, own = zip(*shown, strict=True)
            for name in embedders:
                tracks[name].append(
                    Track(
                        video_id,
                        people[video_id, entity],
                        (numbers[0], numbers[-1]),
                        float(np.median([box[3] - box[1] for box in own])),
                        float(np.mean(facing.get(entity, [0.0]))),
                        portraits[entity][name].embedding() if entity in portraits else None,
                    )
                )
    return tracks


def matched(annotated: np.ndarray, faces: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of annotated boxes, each with the face detected there."""
    if len(faces):
        overlaps = intersection_over_union(annotated[:, None], faces[None, :, :4])
        for row, face in enumerate(overlaps.argmax(axis=1)):
            if overlaps[row, face] >= MIN_OVERLAP:
                yield row, faces[face]


def detected_tracks(
    data: Path, split: str, groundtruth: Groundtruth, people: People, active: ActiveSpeakerDetector
) -> list[Track]:
    """The detected tracks of a split that are of annotated faces."""
    videos = [active.detect(find_video(data / "videos" / split, video_id)) for video_id in groundtruth.video_ids]
    truth = true_persons(groundtruth, people, [as_person_tracks(video) for video in videos])
    tracks = [
        Track(
            video.path.stem,
            person,
            (int(track.frames[0]), int(track.frames[-1])),
            float(np.median(track.boxes[:, 3] - track.boxes[:, 1])),
            1.0,
            track.embedding,
        )
        for video, persons in zip(videos, truth, strict=True)
        for track, person in zip(video.tracks, persons, strict=True)
        if person is not None
    ]
    every = sum(len(video.tracks) for video in videos)
    print(f"{split}: {len(tracks)} of {every} detected tracks are of annotated faces", file=sys.stderr)
    return tracks


def as_person_tracks(video: DetectedVideo) -> PersonTracks:
    return PersonTracks(
        video.path.stem,
        [track.id for track in video.tracks],
        np.repeat(np.arange(len(video.tracks)), [len(track.frames) for track in video.tracks]),
        np.concatenate([track.times_s for track in video.tracks]) - video.start_s,
        np.concatenate([track.boxes for track in video.tracks]) / np.tile([video.info.width, video.info.height], 2),
        None,
    )


def pairs(
    tracks: list[Track], across: bool, max_distance: float, counts: Callable[[Track], bool] | None = None
) -> Pairs:
    """Pairs of tracks put together, within each video or across all; with `counts`, those with a track of which it is
    true."""
    videos = list(dict.fromkeys(track.video for track in tracks))
    total = Pairs()
    for chosen in [videos] if across else [[video] for video in videos]:
        some = [track for track in tracks if track.video in chosen]
        shift = [APART * videos.index(track.video) for track in some]
        frames = [(track.frames[0] + by, track.frames[1] + by) for track, by in zip(some, shift, strict=True)]
        groups = group_tracks([track.embedding for track in some], frames, max_distance)
        total += Pairs.of([track.person for track in some], groups)
        if counts is not None:
            others = [index for index, track in enumerate(some) if not counts(track)]
            apart = Pairs.of([some[index].person for index in others], [groups[index] for index in others])
            total += Pairs(-apart.same, -apart.found, -apart.both)
    return total


def best_distance(tracks: list[Track], across: bool) -> float:
    """The middle of the distances of the best F1."""
    scores = np.array([pairs(tracks, across, distance).f1 or 0.0 for distance in DISTANCES])
    return round(float(np.median(DISTANCES[scores == scores.max()])), 4)


def row(what: str, tracks: list[Track], chosen: dict[bool, float], counts: Callable[[Track], bool] | None = None):
    within, across = (pairs(tracks, far, chosen[far], counts) for far in (False, True))
    cells = [what, *map(text, (within.f1, within.precision, within.recall)), within.same, text(across.f1), across.same]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
