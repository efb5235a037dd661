"""ava_asd: samples per second of the training input and of a training step, and how long an evaluation takes.

A textured 720p video of 30 s with three faces, as ava-extract leaves it: 10 frames a second, grey faces of 100 pixels,
windows of 5. Mode s_av, batches of 16. `--tensorflow` names the Python of an environment that has tensorflow-cpu and
opencv-python-headless: there the same samples are read as the published loader does, and the same layers are trained in
Keras (benchmarks/ava_asd_keras.py). Without it the published column holds what that measured on two cores of a virtual
machine. The evaluation is of scores that exist, on a split of the size of AVA's, its annotations read from csv.
"""

import json
import pickle
import subprocess
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from ava_asd.config import Config, read_config
from ava_asd.evaluation import evaluate_output, nearest_windows
from ava_asd.extract_annotations import extract_samples
from ava_asd.extract_mfccs import extract_mfccs
from ava_asd.extract_videos import extract_video
from ava_asd.layout import video_folder
from ava_asd.models import MODES, StaticNetwork
from ava_asd.optimisers import OPTIMISERS
from ava_asd.stores import read_faces
from ava_asd.training import StaticLoss, TrainingSet
from ava_asd.windows import Windows, scaled
from benchmarks import material, measure
from benchmarks.evaluate import VAL_ROWS, write_files
from benchmarks.measure import Result
from core.clip_utils import SAMPLE_RATE
from core.evaluation.official import read_groundtruth
from core.formats import ava
from core.inputs.loading import load_batches
from core.inputs.sampling import ShuffledBatches
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_writer import write_video
from core.optimization import make_optimizer
from core.runtime.errors import UserError
from core.runtime.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
VIDEO_S = 30  # as in the other benchmarks, which may share it
THREADS = 2
PUBLISHED = {"input": 150, "step": 6.36}  # samples per second; Keras 3.15 on TensorFlow 2.21
INPUT_TARGET = 5  # times the published one
ANN_STRIDE = 8  # annotated faces from one evaluated window to the next: about 100,000 of AVA's validation split
EVALUATION_TARGET_S = 10


def results(
    folder: Path, repeats: int = 3, threads: int = 2, tensorflow: Path | None = None, rows: int = VAL_ROWS
) -> list[Result]:
    """The benchmark's lines; the data set is made in `folder`."""
    torch.set_num_threads(threads)
    if tensorflow is not None:  # now, before a video is made and extracted
        run_there(tensorflow, "-c", "import cv2, tensorflow")
    config = extracted(folder)
    published = PUBLISHED if tensorflow is None else in_keras(folder, config, tensorflow, repeats, threads)
    train_set = TrainingSet(Windows(config, folder, "train"))
    read = measure.rates(lambda: read_batches(train_set, config), repeats)
    trained = measure.rates(lambda: train_batches(train_set, config), repeats, run_s=10.0, warm_up=2)
    input_, step = published["input"], published["step"]
    return [
        Result(f"training input of ava_asd, {THREADS} threads, samples/s", read, input_, INPUT_TARGET * input_),
        Result(f"training step of s_av, {threads} CPU threads, samples/s", trained, step, step),
        evaluation(folder, repeats, rows),
    ]


def evaluation(folder: Path, repeats: int, rows: int) -> Result:
    """Scores of every eighth annotated face against all `rows` annotations, three outputs, reading these included."""
    truth, _ = measure.in_child(write_files, folder, rows)
    annotated = read_groundtruth([truth])
    evaluated = np.arange(0, rows, ANN_STRIDE)
    videos, entities = (
        np.array(annotated.rows.names(column).to_pylist(), object)[annotated.rows.codes(column)[evaluated]]
        for column in ("video_id", "entity_id")
    )
    times = annotated.rows.numbers("frame_timestamp")[evaluated]
    speaking = annotated.speaking[evaluated]
    scores = np.random.default_rng(0).random((len(MODES["s_av"]), len(evaluated)))

    def evaluate() -> None:
        groundtruth = read_groundtruth([truth])
        nearest = nearest_windows(videos, entities, times, groundtruth)
        for probability in scores:
            evaluate_output(speaking, probability, groundtruth, nearest)

    target = EVALUATION_TARGET_S if rows == VAL_ROWS else None
    runs = [measure.seconds(evaluate) for _ in range(repeats)]
    return Result(f"evaluating {len(evaluated):,} windows on {rows:,} faces, s", runs, None, target, at_most=True)


def extracted(folder: Path) -> Config:
    """Extract a textured video with audio as the shipped configuration says; its samples serve both splits."""
    config = read_config(ROOT / "configs" / "config.yaml")
    silent, rows = material.textured_video(folder, VIDEO_S)
    videos = config.path(folder, "vid_save_path")
    video = videos / silent.name
    if not video.is_file():
        noise = np.random.default_rng(0).normal(0, 3000, VIDEO_S * SAMPLE_RATE).astype(np.int16)
        with atomic_write(video) as temporary:
            write_video(temporary, (frame.rgb() for frame in read_frames(MediaFile(silent))), material.FPS, noise)
    annotations = config.path(folder, "train_ann_dir") / f"{silent.stem}{ava.ANNOTATION_SUFFIX}"
    ava.write_groundtruth(annotations, rows)
    out = video_folder(config, folder, silent.stem)
    extract_video(out, config, annotations, videos)
    extract_mfccs(out, config)
    extract_samples(config, folder, "train")
    return config


def read_batches(train_set: TrainingSet, config: Config) -> Generator[int, None, None]:
    """Batches without end, as a training reads them, as their sizes."""
    batches = ShuffledBatches(train_set.items, config.batch_size)
    while True:
        batches.epoch += 1
        for batch in load_batches(train_set, batches, THREADS, torch.device("cpu")):
            scaled(batch.video)
            yield len(batch.labels)


def train_batches(train_set: TrainingSet, config: Config) -> Generator[int, None, None]:
    """Steps without end on one batch in memory, as their sizes."""
    model = StaticNetwork(config.mode, config.audio_shape, config.video_shape).train()
    loss, optimiser = StaticLoss(model, config), make_optimizer(OPTIMISERS[config.optimiser], model.parameters(), 0.01)
    batch = train_set.windows.load(np.arange(config.batch_size))
    while True:
        optimiser.zero_grad(set_to_none=True)
        loss(model, batch, None).loss.backward()
        optimiser.step()
        yield len(batch.labels)


def in_keras(folder: Path, config: Config, python: Path, repeats: int, threads: int) -> dict[str, float]:
    """The same two numbers of the published way, best of some runs.

    Raises:
        UserError: it does not run there.
    """
    write_published_samples(folder, config)
    script = ROOT / "benchmarks" / "ava_asd_keras.py"
    return json.loads(run_there(python, script, folder / "published.npz", repeats, threads).splitlines()[-1])


def run_there(python: Path, *arguments: object) -> str:
    """What a Python of another environment prints.

    Raises:
        UserError: it is no Python, or it fails.
    """
    try:
        done = subprocess.run([python, *map(str, arguments)], capture_output=True, text=True)
    except OSError as error:
        raise UserError(
            f"--tensorflow {python}: {error.strerror}; give the Python of an environment with tensorflow-cpu and "
            "opencv-python-headless, such as tf/bin/python"
        ) from error
    if done.returncode:
        *_, last = ["", *done.stderr.strip().splitlines()]
        raise UserError(f"--tensorflow {python}: {last or 'no reason given'} (exit status {done.returncode})")
    return done.stdout


def write_published_samples(folder: Path, config: Config) -> None:
    """Write what the published loader reads beside the frames: its MFCC pickle, and a list of the windows' faces."""
    windows = Windows(config, folder, "train")
    store = windows.store(0)
    with (store.folder.path / "mfcc.pkl").open("wb") as file:
        pickle.dump(store.mfccs.astype(np.float64), file)
    rows = windows.first[:, None] + np.arange(config.video_window)
    faces = read_faces(store.folder.faces).to_pandas()
    np.savez(
        folder / "published.npz",
        folder=str(store.folder.path),
        frames=faces["frame"].to_numpy()[rows],
        boxes=faces[list(ava.BOX_COLUMNS)].to_numpy()[rows],
        ends=((windows.timestamp - store.start_s) / config.stride).astype(int) - 3,
        classes=windows.class_id,
    )
