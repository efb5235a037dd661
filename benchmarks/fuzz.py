"""Damaged files, by the thousand, given to every reader of a file that a user hands over.

    python benchmarks/fuzz.py                       # 500 cases of each reader: some minutes
    python benchmarks/fuzz.py crops wav --cases 5000 --seed 1

A valid file is changed at random and read. A reader may accept it or refuse it with a UserError; anything else is a
fault, and so is a process that dies or takes too long. Exit status 1 where there was one; its case is printed, and made
again by its number.
"""

import argparse
import io
import json
import multiprocessing
import random
import re
import signal
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import peak_mb
from core import settings
from core.runtime.errors import EXIT_BROKEN_ITEMS, UserError, exits_cleanly

# What takes the place of a word or stands between two bytes.
WORDS = b'nan inf -inf 1e999 null -1 0 99999999999999999999 1_000 true "" [] {} \xff\xfe \x00 \n , " 0.50 x'.split(b" ")
WORDS += ["９".encode(), b"\r", b"", b" ", b"\x80\x04."]
WORD = re.compile(rb"[\w.+-]+")
CHUNK = 100  # cases for a process
CASE_S = 30  # seconds for a case


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Attributes:
        make: writes what the reader needs into an empty folder, and gives the file that is changed.
        read: reads that file.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def mutate(content: bytes, draw: random.Random) -> bytes:
    """A file's content changed in one to three places; of an archive the content of a member, with a new checksum."""
    if content[:4] == b"PK\x03\x04" and draw.random() < 0.5:
        return _with_mutated_member(content, draw)
    for _ in range(draw.choice((1, 1, 2, 3))):
        content = draw.choice(MUTATIONS)(content, draw)
    return content


def _flip(content: bytes, draw: random.Random) -> bytes:
    at, bit = draw.randrange(len(content) or 1), 1 << draw.randrange(8)
    return content[:at] + bytes(byte ^ bit for byte in content[at : at + 1]) + content[at + 1 :]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _remove(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + content[at + draw.choice((1, 2, 8, 100)) :]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + content[at - draw.choice((1, 8, 100)) :]


def _insert(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.choice(WORDS) + content[at:]


def _word(content: bytes, draw: random.Random) -> bytes:
    words = list(WORD.finditer(content[:100_000]))
    if not words:
        return content
    begin, end = draw.choice(words).span()
    return content[:begin] + draw.choice(WORDS) + content[end:]


def _number(content: bytes, draw: random.Random) -> bytes:
    """A little-endian integer of four bytes, as lengths and offsets are, replaced by another."""
    at = draw.randrange(len(content) + 1) // 4 * 4
    value = draw.choice((0, 1, 2, 2**31 - 1, 2**32 - 1, len(content), draw.getrandbits(32)))
    return content[:at] + value.to_bytes(4, "little") + content[at + 4 :]


MUTATIONS = (_flip, _flip, _cut, _remove, _repeat, _insert, _word, _word, _number)


def _with_mutated_member(content: bytes, draw: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(members))
    members[name] = draw.choice(MUTATIONS)(members[name], draw)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, value in members.items():
            archive.writestr(member, value)
    return out.getvalue()


# ---------------------------------------------------------------- valid files

ENTITIES = {"v:1": 6, "v:2": 4}
LABELS = ("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE")
LINES = [
    f"v,{n / 25 + 1:.2f},0.1,0.2,0.5,0.75,{LABELS[n % 3]},{entity}"
    for entity, count in ENTITIES.items()
    for n in range(count)
]


def _write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def _lines(name: str, end: str = "") -> Callable[[Path], Path]:
    return lambda folder: _write(folder / name, "".join(f"{line}{end}\n" for line in LINES))


def _predictions(folder: Path) -> Path:
    lines = (re.sub("[A-Z_]{9,}", "SPEAKING_AUDIBLE", line) for line in LINES)
    return _write(folder / "p.csv", "".join(f"{line},0.25\n" for line in lines))


def _rows(folder: Path):
    from core.formats import ava

    return ava.augment(ava.read_annotations(_lines("v-activespeaker.csv")(folder)))


def _augmented(folder: Path) -> Path:
    from core.formats import ava

    ava.write_augmented(folder / "a.csv", _rows(folder))
    return folder / "a.csv"


def _features(form: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from core.formats.feature_store import VideoFeatures, write_features

        rows, draw = _rows(folder), np.random.default_rng(0)
        logits = draw.standard_normal((3, len(rows), 2)).astype(np.float32)
        (folder / "features").mkdir()
        features = draw.standard_normal((len(rows), 8)).astype(np.float16)
        write_features(folder / "features", VideoFeatures(rows, *logits, features), form)
        return folder / "features" / f"v.{form}"

    return make


def _read_features(path: Path) -> object:
    from core.formats.feature_store import FeatureStore

    store = FeatureStore(path.parent)
    return store.gather(np.arange(len(store))), store.labels, store.time_steps, store.encoder


def _crops(layout: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import cv2

        from core.formats.crop_store import write_packed

        rows = _rows(folder)
        pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
        crops = folder / "crops"
        crops.mkdir()
        if layout == "packed":
            write_packed(crops / "v.arrow", rows, ((row, jpeg) for row in range(len(rows))))
            return crops / "v.arrow"
        for entity, time in zip(rows["entity_id"], rows["frame_timestamp"], strict=True):
            (crops / entity).mkdir(exist_ok=True)
            (crops / entity / f"{time}.jpg").write_bytes(jpeg)
        return crops / "v:1" / "1.04.jpg"

    return make


def _read_crops(path: Path) -> object:
    from core.formats import ava
    from core.formats.crop_store import Crops

    folder = path.parent if path.suffix == ".arrow" else path.parents[1]
    rows = ava.augment(ava.read_annotations(folder.parent / "v-activespeaker.csv"))
    crops = Crops(folder, rows)
    return [crops.decode(row, 16) for row in range(len(rows))]


def _wav(folder: Path) -> Path:
    from core.formats.wav import write_wav

    write_wav(folder / "v.wav", np.arange(800, dtype=np.int16))
    return folder / "v.wav"


def _logits(folder: Path) -> Path:
    from core.formats.context_logits import write_logits

    rows = _rows(folder)
    (folder / "logits").mkdir()
    ids, times = rows["entity_id"].to_numpy(), rows["frame_timestamp"].to_numpy()
    write_logits(folder / "logits", "v", ids, times, np.random.default_rng(0).standard_normal((len(rows), 2)))
    return folder / "logits" / "v.csv"


def _network():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2), torch.nn.BatchNorm1d(3))


def _weights(folder: Path) -> Path:
    import torch

    torch.save(_network().state_dict(), folder / "w.pth")
    return folder / "w.pth"


def _load_weights(path: Path) -> object:
    from core.models.weights import load_weights

    model = _network()
    load_weights(model, path)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _training():
    """A training of nothing but one epoch that is over: what it does is to take up its state."""
    import torch

    from core.optimization import Training, make_accelerator

    class Batches:
        epoch = 0

        def global_sizes(self) -> list[int]:
            return [1]

    data = (None, Batches())
    accelerator = make_accelerator(torch.device("cpu"), "fp32")
    options = {"optimizer": "Adam", "learning_rate": 1e-3, "epochs": 1}
    return Training(_network(), None, train=data, val=data, accelerator=accelerator, **options)


RUN_SETTINGS = {"clip_length": 3, "STE_optimization_params": {"epochs": 1, "crop_scale": [0.5, 1.0]}}


def _run(changed: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import torch

        from core.training.runs import Run

        training = _training()
        training.weights(torch.ones(2, 2, 4)).sum().backward()
        training.optimizer.step()
        training.scheduler.step()
        run, line = Run(folder / "models" / "a", RUN_SETTINGS, resume=False), {"epoch": 1, "train_loss": 0.5}
        state = {"optimizer": training.optimizer.state_dict(), "scheduler": training.scheduler.state_dict()}
        weights = training.weights.state_dict()
        run.append_log(line)
        run.save(
            1, weights, {"model": weights, **state, "scaler": {}, "epoch": 1, "best": 0.5, "line": line}, best=True
        )
        return run.folder / changed

    return make


def _resume(path: Path) -> object:
    from core.training.runs import Run, find_checkpoint

    found = find_checkpoint("best", path.parents[1], "STE")
    run = Run(path.parent, RUN_SETTINGS, resume=True)
    training = _training()
    return found, run.log_lines(), training.fit(run), training.optimizer.state_dict()


def _labels(folder: Path) -> Path:
    return _write(folder / "bell.txt", "".join(f"{n}\t10\t20\t30\t{n % 2}\n" for n in range(10)))


def _read_labels(path: Path) -> object:
    from core.evaluation.columbia import read_labels

    return read_labels(path.parent)


def _stages(folder: Path) -> Path:
    entry = {"seconds": 1.5, "count": 10, "unit": "faces"}
    return _write(folder / "stages.json", json.dumps({"annotations, train": entry, "STE_train": entry}))


def _read_stages(path: Path) -> object:
    from scripts.run_pipeline import Stages

    return [entry["count"] / entry["seconds"] for entry in Stages(path).seconds.values()]


def _synthetic(folder: Path) -> Path:
    from scripts import make_synthetic_ava as synthetic

    synthetic.claim_folder(folder, synthetic.Settings(0, 2.0, 25.0, (160, 90), 2, 1))
    return folder / synthetic.SETTINGS_NAME


def _read_synthetic(path: Path) -> object:
    from scripts import make_synthetic_ava as synthetic

    return synthetic.claim_folder(path.parent, synthetic.Settings(0, 2.0, 25.0, (160, 90), 3, 1))


SETS = "STE_optimization_params.epochs=3 ASC_forward_params.weights='best' STE_optimization_params.mix_snr=(-5,5)"
SETS += " STE_optimization_params.crop_scale=(0.5,1.0) STE_forward_params.precision=bf16 STE_inputs.audio_dir='a/b'"


def _read_sets(path: Path) -> object:
    changes = path.read_bytes().decode("utf-8", "surrogateescape").split(" ")
    return json.dumps(settings.load(None, changes).plain())


def _yaml(name: str, **values: str) -> Callable[[Path], Path]:
    source = Path(__file__).resolve().parents[1] / "configs" / name
    text = "".join(f"{key}: {value}\n" for key, value in values.items())
    return lambda folder: _write(folder / name, text or source.read_text(encoding="utf-8"))


def _module(name: str, function: str) -> Callable[..., object]:
    """A function of a module that is imported when it is called first."""

    def read(path: Path, **options: object) -> object:
        import importlib

        return getattr(importlib.import_module(name), function)(path, **options)

    return read


def _made_by_a_step(folder: Path):
    from core.runtime.provenance import Files, Record

    return Record(folder, "v", "step", {"size": 7, "source": Files.one(folder / "source")})


def _record(folder: Path) -> Path:
    _write(folder / "source", "source")
    record = _made_by_a_step(folder)
    with record.making(["out"]):
        _write(folder / "out", "out")
    return record.path


def _read_record(path: Path) -> object:
    from core.runtime.provenance import check_outputs

    record = _made_by_a_step(path.parents[1])
    return check_outputs(path.parents[1], "v", ["out"]), record.missing(["out"]), record.written, record.notes


def _keras(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "w.hdf5", "w") as file:
        file.attrs["layer_names"] = [b"s_a_conv1"]
        group = file.create_group("s_a_conv1")
        group.attrs["weight_names"] = [b"conv1/kernel:0"]
        group.create_dataset("conv1/kernel:0", data=np.zeros((3, 3, 1, 4), np.float32))
    return folder / "w.hdf5"


def _video(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from core.media.video_writer import write_video

        frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3)).astype(np.uint8)
        write_video(folder / f"v{suffix}", frames, 25, np.arange(6 * 640, dtype=np.int16))
        return folder / f"v{suffix}"

    return make


def _read_video(path: Path) -> object:
    from core.media.audio import extract_audio
    from core.media.container import MediaFile
    from core.media.video import read_frames

    with MediaFile(path) as media:
        for frame in read_frames(media):
            frame.bgr()
        extract_audio(media, path.with_suffix(".wav"))


READERS = {
    "annotations": Reader(_lines("v-activespeaker.csv"), _module("core.formats.ava", "read_annotations")),
    "augmented": Reader(_augmented, _module("core.formats.ava", "read_augmented")),
    "groundtruth": Reader(
        _lines("gt.csv"), lambda path: _module("core.evaluation.official", "read_groundtruth")([path])
    ),
    "predictions": Reader(_predictions, _module("core.evaluation.detected", "read_detections")),
    "columbia": Reader(_labels, _read_labels),
    "features": Reader(_features("arrow"), _read_features),
    "features_csv": Reader(_features("csv"), _read_features),
    "crops": Reader(_crops("packed"), _read_crops),
    "jpg": Reader(_crops("folders"), _read_crops),
    "wav": Reader(_wav, _module("core.formats.wav", "read_wav")),
    "logits": Reader(_logits, lambda path: _module("core.formats.context_logits", "read_logits")(path.parent)),
    "weights": Reader(_weights, _load_weights),
    "last_pt": Reader(_run("last.pt"), _resume),
    "run_settings": Reader(_run("settings.json"), _resume),
    "run_log": Reader(_run("log.csv"), _resume),
    "record": Reader(_record, _read_record),
    "stages": Reader(_stages, _read_stages),
    "synthetic": Reader(_synthetic, _read_synthetic),
    "sets": Reader(lambda folder: _write(folder / "sets", SETS), _read_sets),
    "ava_asd_config": Reader(_yaml("config.yaml"), _module("ava_asd.config", "read_config")),
    "ava_asd_telegram": Reader(
        _yaml("telegram.yaml", api_key="'1:a'", chat_id="12"), _module("ava_asd.telegram", "read_bot")
    ),
    "ava_asd_audio": Reader(_wav, _module("ava_asd.stores", "read_audio")),
    "ava_asd_keras": Reader(_keras, lambda path: _module("ava_asd.keras_weights", "read_keras")(path, limit_s=5)),
    "mp4": Reader(_video(".mp4"), _read_video),
    "mkv": Reader(_video(".mkv"), _read_video),
}


# ---------------------------------------------------------------- cases


def attempt(reader: Reader, path: Path, content: bytes) -> str:
    """What becomes of a file's content: "accepted" or "refused"; any other exception is the reader's own."""
    path.unlink(missing_ok=True)  # the file before may be mapped into memory
    path.write_bytes(content)
    try:
        reader.read(path)
    except UserError:
        return "refused"
    return "accepted"


def run_cases(name: str, seed: int, first: int, last: int, reached: Any) -> tuple[Counter, list[str], float]:
    """Some cases of one reader: outcomes, faults, megabytes of memory; `reached` tells the case at hand."""
    outcomes, faults, reader = Counter(), [], READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = reader.make(Path(folder))
        whole = path.read_bytes()
        reader.read(path)
        for number in range(first, last):
            reached.value = number
            signal.alarm(CASE_S)  # ends the process, whatever library it hangs in
            try:
                outcomes[attempt(reader, path, mutate(whole, random.Random(f"{name} {seed} {number}")))] += 1
            except Exception as error:
                outcomes["faults"] += 1
                where = traceback.extract_tb(error.__traceback__)
                ours = [line for line in where if "/core/" in line.filename or "/ava_asd/" in line.filename][-1:]
                place = "".join(f" at {Path(line.filename).name}:{line.lineno}" for line in ours)
                faults.append(f"{name} {number}: {type(error).__name__}: {str(error)[:100]!r}{place}")
    return outcomes, faults, peak_mb()


def fuzz(name: str, seed: int, cases: int) -> tuple[Counter, list[str], float]:
    """All cases of one reader, in processes of their own, which may die of them."""
    outcomes, faults, memory, first = Counter(), [], 0.0, 0
    with multiprocessing.Manager() as manager:
        reached = manager.Value("q", 0)
        while first < cases:
            last = min(first + CHUNK, cases)
            try:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    part = pool.submit(run_cases, name, seed, first, last, reached).result()
            except BrokenProcessPool:
                last = reached.value + 1
                part = Counter(faults=1), [f"{name} {reached.value}: the process died or took {CASE_S} s"], 0.0
            outcomes, faults, memory, first = outcomes + part[0], faults + part[1], max(memory, part[2]), last
    return outcomes, faults, memory


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*READERS, []], metavar="NAME", help=f"of {', '.join(READERS)}")
    parser.add_argument("--cases", type=settings.at_least_one, default=500, help="of each reader (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cases (default 0)")
    arguments = parser.parse_args(argv)
    total = Counter()
    print(f"{'reader':<18}{'refused':>9}{'accepted':>9}{'faults':>9}{'MB':>7}")
    for name in arguments.names or READERS:
        outcomes, faults, memory = fuzz(name, arguments.seed, arguments.cases)
        counts = "".join(f"{outcomes[kind]:>9}" for kind in ("refused", "accepted", "faults"))
        print(f"{name:<18}{counts}{memory:>7.0f}", flush=True)
        for fault, count in Counter(re.sub(r" \d+:", ":", text, count=1) for text in faults).most_common(5):
            example = next(text for text in faults if re.sub(r" \d+:", ":", text, count=1) == fault)
            print(f"    {count} x {example}", file=sys.stderr)
        total += outcomes
    print(f"{'all':<18}" + "".join(f"{total[kind]:>9}" for kind in ("refused", "accepted", "faults")))
    return EXIT_BROKEN_ITEMS if total["faults"] else 0


if __name__ == "__main__":
    main()
