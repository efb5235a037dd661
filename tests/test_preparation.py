"""The scripts of data/: what they write, how they fail, how they go on after an interrupt or a full disk."""

import contextlib
import glob
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import scipy.io.wavfile
from tiny import (
    BOXES,
    CLIPS,
    CROP_SIZE,
    FPS,
    HEIGHT,
    WIDTH,
    annotation_row,
    exit_status,
    refusal,
    tiny_frame,
    tree,
    write_annotations,
)
from videos import number_of, of_streams, strength, tone

from core.clip_utils import SAMPLE_RATE
from core.formats import ava
from core.formats.crop_store import Crops
from core.formats.wav import read_wav, write_wav
from core.media.video_writer import write_video
from core.runtime.provenance import read_record
from data import augment_annotations, extract_audio_tracks, extract_face_crops_time, slice_audio_tracks

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("augment_annotations", "extract_audio_tracks", "slice_audio_tracks", "extract_face_crops_time")


@pytest.fixture
def steps(tiny_set, prepared) -> Callable[..., dict[str, tuple]]:
    """Each script's main function and arguments, which write a split below `root` as `prepared` holds it."""

    def steps(split: str, root: Path, prepared: Path = prepared) -> dict[str, tuple]:
        videos, csv = tiny_set / "videos" / split, prepared / "csv" / f"{split}.csv"
        tracks, audio, crops = (root / name / split for name in ("tracks", "audio", "crops"))
        return {
            SCRIPTS[0]: (augment_annotations.main, tiny_set / "annotations" / split, root / "csv" / f"{split}.csv"),
            SCRIPTS[1]: (extract_audio_tracks.main, videos, csv, tracks),
            SCRIPTS[2]: (slice_audio_tracks.main, prepared / "tracks" / split, csv, audio),
            SCRIPTS[3]: (extract_face_crops_time.main, videos, csv, crops, "--size", CROP_SIZE),
        }

    return steps


def rows_of(video: str, first: int, last: int, entity: int = 1) -> list[str]:
    """Lines of one entity of a video, in the frames [first, last]."""
    box = np.array(BOXES[entity - 1]) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
    return [
        annotation_row(video, f"{number / FPS:.2f}", box, "NOT_SPEAKING", f"{video}_0000_0060:{entity}")
        for number in range(first, last + 1)
    ]


def augmented(folder: Path, lines: list[str]) -> Path:
    """An augmented csv of lines of any number of videos."""
    annotations = write_annotations(folder / "annotations" / "all-activespeaker.csv", lines)
    assert exit_status(augment_annotations.main, annotations.parent, folder / "all.csv") == 0
    return folder / "all.csv"


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-3000, 3000, frames * SAMPLE_RATE // FPS).astype(np.int16)


def make_video(path: Path, frames: int = 25, audio: np.ndarray | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_video(path, (tiny_frame(number % 50) for number in range(frames)), FPS, audio)
    return path


def table(text: str) -> dict[str, str]:
    """The broken videos of a script's last lines: video id -> message."""
    assert "Traceback" not in text
    lines = text[text.index("with faults; the others are finished:") :].splitlines()[1:]
    return dict(line.strip().split(": ", 1) for line in lines)


def files(folder: Path) -> set[str]:
    return set(tree(folder))


# What is written


def test_the_folders_after_all_steps(prepared):
    for split in ava.SPLITS:
        clips = [clip for clip in CLIPS if clip.split == split]
        entities = {f"{face.entity_id}.wav" for clip in clips for face in clip.faces}
        assert files(prepared / "audio" / split) == entities
        assert files(prepared / "tracks" / split) == {f"{clip.video_id}.wav" for clip in clips}
        assert files(prepared / "crops" / split) == {f"{clip.video_id}.arrow" for clip in clips}
    assert any(name.startswith("-") for name in files(prepared / "crops" / "train"))  # an id that looks like an option


def test_the_augmented_csv_holds_every_annotation_once(tiny_set, prepared):
    for split in ava.SPLITS:
        source = [
            line for path in (tiny_set / "annotations" / split).iterdir() for line in path.read_text().splitlines()
        ]
        header, *lines = (prepared / "csv" / f"{split}.csv").read_text().splitlines()
        assert header == ",".join(ava.AUGMENTED_COLUMNS)
        assert sorted(line.rsplit(",", 2)[0] for line in lines) == sorted(source)


def test_audio_of_entities_begins_at_their_first_timestamp(prepared):
    for clip in CLIPS:
        track = read_wav(prepared / "tracks" / clip.split / f"{clip.video_id}.wav")
        for face in clip.faces:
            audio = read_wav(prepared / "audio" / clip.split / f"{face.entity_id}.wav")
            first, last = (number * SAMPLE_RATE // FPS for number in (face.first, face.last))
            np.testing.assert_array_equal(audio, track[first:last])
            assert len(audio) == last - first  # none for the entity with one row


def audio_of_entities(folder: Path, lines: list[str], audio: np.ndarray) -> Path:
    """The folder with the audio of annotated entities of one video `v`."""
    make_video(folder / "videos" / "v.mp4", 50, audio)
    csv = augmented(folder, lines)
    assert exit_status(extract_audio_tracks.main, folder / "videos", csv, folder / "tracks") == 0
    assert exit_status(slice_audio_tracks.main, folder / "tracks", csv, folder / "audio") == 0
    return folder / "audio"


def test_a_click_is_heard_in_the_slice_where_it_is_in_the_video(tmp_path):
    click = np.zeros(2 * SAMPLE_RATE, np.int16)
    click[round(0.6 * SAMPLE_RATE) :][:32] = 20_000
    folder = audio_of_entities(tmp_path, [*rows_of("v", 13, 40), *rows_of("v", 2, 48, entity=2)], click)
    for entity, first in ((1, 13), (2, 2)):
        samples = np.abs(read_wav(folder / f"v_0000_0060:{entity}.wav").astype(np.int32))
        assert int((samples > 6000).argmax()) / SAMPLE_RATE == pytest.approx(0.6 - first / FPS, abs=0.003)


def test_audio_that_ends_somewhat_early_is_cut_where_it_ends(tmp_path):
    """Audio some tens of milliseconds shorter than the frames is usual."""
    folder = audio_of_entities(tmp_path, rows_of("v", 0, 49), np.full(int(1.9 * SAMPLE_RATE), 1000, np.int16))
    assert 1.9 <= len(read_wav(folder / "v_0000_0060:1.wav")) / SAMPLE_RATE <= 1.96


def test_the_published_layout_and_the_native_size(tiny_set, prepared, tmp_path):
    csv, videos = prepared / "csv" / "val.csv", tiny_set / "videos" / "val"
    options = ("--layout", "folders", "--size", 0)
    assert exit_status(extract_face_crops_time.main, videos, csv, tmp_path, *options) == 0
    rows = ava.read_augmented(csv)
    names = zip(rows["entity_id"], rows["frame_timestamp"], strict=True)
    assert files(tmp_path) == {f"{entity}/{timestamp}.jpg" for entity, timestamp in names}
    x1, y1, x2, y2 = BOXES[0]
    assert cv2.imdecode(np.frombuffer(Crops(tmp_path, rows).jpeg(0), np.uint8), 1).shape == (y2 - y1, x2 - x1, 3)


def test_a_video_in_another_container_is_found(tmp_path):
    videos = make_video(tmp_path / "videos" / "-v.mkv", 10, noise(10)).parent
    csv = augmented(tmp_path, rows_of("-v", 0, 8))
    assert exit_status(extract_audio_tracks.main, videos, csv, tmp_path / "tracks") == 0
    assert exit_status(extract_face_crops_time.main, videos, csv, tmp_path / "crops", "--size", 16) == 0
    assert files(tmp_path / "tracks") == {"-v.wav"}
    assert files(tmp_path / "crops") == {"-v.arrow"}


# Finished work is kept, unfinished work is done


def test_what_is_done_is_not_done_again(steps, prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    before = {name: (copy / name).stat() for name in tree(copy)}
    missing = {
        "tracks/train/-tinyTrain1.wav",
        "audio/train/tinyTrain_2_0000_0060:2.wav",
        "crops/train/tinyTrain_2.arrow",
    }
    for name in missing:
        (copy / name).unlink()
    for name in SCRIPTS[1:]:
        assert exit_status(*steps("train", copy, copy)[name]) == 0
    assert tree(copy) == tree(prepared)
    now = {name: (copy / name).stat() for name in before}
    again = {
        name
        for name in now
        if (now[name].st_mtime_ns, now[name].st_ino) != (before[name].st_mtime_ns, before[name].st_ino)
    }
    assert again == missing


def test_crops_of_other_rows_or_another_size_are_cut_again(tiny_set, prepared, tmp_path):
    crops = shutil.copytree(prepared / "crops" / "val", tmp_path / "crops")
    lines = (prepared / "csv" / "val.csv").read_text().splitlines()
    csv = write_annotations(tmp_path / "fewer.csv", lines[:-1])
    videos = tiny_set / "videos" / "val"
    assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", CROP_SIZE) == 0
    assert Crops(crops, ava.read_augmented(csv)).decode(0, CROP_SIZE).shape == (CROP_SIZE, CROP_SIZE, 3)
    assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", 16) == 0
    assert Crops(crops, ava.read_augmented(csv)).decode(0).shape == (16, 16, 3)


def test_audio_of_other_annotations_is_cut_again(steps, tmp_path):
    """A wav that holds another stretch of the video's audio would shift what the encoder hears."""
    step = steps("val", tmp_path)["slice_audio_tracks"]
    assert exit_status(*step) == 0
    whole = tree(tmp_path)
    wav = tmp_path / sorted(whole)[0]
    write_wav(wav, np.roll(read_wav(wav), 800))
    assert exit_status(*step) == 0
    assert tree(tmp_path) == whole


def test_shares_make_up_the_whole(steps, tmp_path):
    step = steps("train", tmp_path)["extract_audio_tracks"]
    assert exit_status(*step, "--shard", "2/2") == 0
    assert files(tmp_path / "tracks" / "train") == {"tinyTrain_2.wav"}
    assert exit_status(*step, "--shard", "1/2") == 0
    assert files(tmp_path / "tracks" / "train") == {"tinyTrain_2.wav", "-tinyTrain1.wav"}


# Mistakes of the user: status 2, one message


def only_error(capsys: pytest.CaptureFixture, *step: object) -> str:
    """What a step prints as it ends with status 2, which is one message and no traceback."""
    text = refusal(capsys, *step)
    assert text.startswith("error: ")
    assert "Traceback" not in text
    assert text.count("error: ") == 1
    return text


@pytest.mark.parametrize(
    ("rows", "fact"), [([], "mpty"), (["v,0.00,0.1,0.1,0.2,0.2,NOT_SPEAKING,v:1"] * 2, "line 2: ")]
)
def test_bad_annotations_are_refused_before_anything_is_written(tmp_path, capsys, rows, fact):
    annotations = write_annotations(tmp_path / "annotations" / "v-activespeaker.csv", rows)
    text = only_error(capsys, augment_annotations.main, annotations.parent, tmp_path / "out" / "v.csv")
    assert str(annotations) in text
    assert fact in text
    assert not tree(tmp_path / "out")


@pytest.mark.parametrize("script", SCRIPTS[1:])
@pytest.mark.parametrize(
    ("csv", "out", "options", "fact"),
    [
        ("{0}/annotations/val/tinyVal_001-activespeaker.csv", "out", [], "data/augment_annotations.py"),
        ("absent.csv", "out", [], "absent.csv"),
        (None, "out", ["--jobs", 0], "--jobs 0"),
        (None, "out", ["--shard", "3/2"], "--shard 3/2"),
        (None, "file/out", [], "cannot create the folder"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(steps, tiny_set, tmp_path, capsys, script, csv, out, options, fact):
    (tmp_path / "file").touch()
    main, source, right_csv, _, *rest = steps("val", tmp_path)[script]
    wrong = right_csv if csv is None else csv.format(tiny_set)
    assert fact in only_error(capsys, main, source, wrong, tmp_path / out, *rest, *options)
    assert files(tmp_path) == {"file"}


def test_a_negative_size_is_refused(steps, tmp_path, capsys):
    assert "--size -1" in only_error(capsys, *steps("val", tmp_path)["extract_face_crops_time"], "--size=-1")


def test_a_wav_of_another_rate_is_refused(prepared, tmp_path, capsys):
    """Tracks that somebody else extracted at 44.1 kHz would put all audio at another time."""
    scipy.io.wavfile.write(tmp_path / "tinyVal_001.wav", 44_100, np.zeros(88_200, np.int16))
    text = only_error(capsys, slice_audio_tracks.main, tmp_path, prepared / "csv" / "val.csv", tmp_path / "out")
    assert all(fact in text for fact in ("tinyVal_001.wav", "44100 Hz", "16000 Hz"))
    assert not tree(tmp_path / "out")


# Broken videos: status 1, the others finished, a table at the end


@pytest.fixture
def damaged(tmp_path) -> Path:
    """Videos of all kinds and `all.csv`, which calls for frames 0 to 20 of each."""
    videos = tmp_path / "videos"
    for name in ("-good", "good", "cut", "half"):
        make_video(videos / f"{name}.mp4", 25, noise(25))
    make_video(videos / "mute.mp4", 25)
    make_video(videos / "short.mp4", 10, noise(10))
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video\n" * 50)
    whole = (videos / "cut.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at its end
    data = bytearray(whole)
    media = data.index(b"mdat") + 4
    data[media + 200 : media + 200 + (len(data) - media) // 2] = bytes((len(data) - media) // 2)
    (videos / "half.mp4").write_bytes(data)  # whole index, damaged frames and audio
    names = ("-good", "absent", "cut", "empty", "good", "half", "mute", "short", "text")
    augmented(tmp_path, [line for name in names for line in rows_of(name, 0, 20)])
    return tmp_path


def test_broken_videos_among_many(damaged, capsys):
    videos, csv, crops = damaged / "videos", damaged / "all.csv", damaged / "crops"
    capsys.readouterr()
    assert exit_status(extract_audio_tracks.main, videos, csv, damaged / "tracks") == 1
    printed = capsys.readouterr()
    broken = table(printed.err)
    facts = {"cut": "opened", "empty": "0 bytes", "mute": "no audio", "text": "opened", "absent": f"{videos}"}
    assert set(broken) - {"half"} == set(facts)
    assert all(fact in broken[name] for name, fact in facts.items())
    assert "error" not in printed.out
    assert files(damaged / "tracks") - {"half.wav"} == {"-good.wav", "good.wav", "short.wav"}

    assert exit_status(slice_audio_tracks.main, damaged / "tracks", csv, damaged / "audio") == 1
    assert "data/extract_audio_tracks.py" in table(capsys.readouterr().err)["empty"]
    assert {"-good_0000_0060:1.wav", "good_0000_0060:1.wav"} <= files(damaged / "audio")

    step = (extract_face_crops_time.main, videos, csv, crops, "--size", 16)
    assert exit_status(*step) == 1
    broken = table(capsys.readouterr().err)
    assert all(fact in broken["short"] for fact in ("0.36 s", "short_0000_0060:1", "0.44 s"))
    assert set(broken) - {"half"} == {"absent", "cut", "empty", "short", "text"}
    assert files(crops) - {"half.arrow"} == {"-good.arrow", "good.arrow", "mute.arrow"}

    for name in broken:  # the next run does what was mended
        shutil.copy(videos / "good.mp4", videos / f"{name}.mp4")
    assert exit_status(*step) == 0
    assert {f"{name}.arrow" for name in broken} <= files(crops)


def test_a_video_that_is_cut_off_leaves_no_wav_and_is_done_when_it_is_mended(tmp_path, capsys):
    video = make_video(tmp_path / "videos" / "v.mkv", 50, noise(50))
    step = (extract_audio_tracks.main, video.parent, augmented(tmp_path, rows_of("v", 0, 10)), tmp_path / "tracks")
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    assert exit_status(*step) == 1
    assert "cut off" in table(capsys.readouterr().err)["v"]
    assert files(tmp_path / "tracks") == set()
    video.write_bytes(whole)
    assert exit_status(*step) == 0
    assert len(read_wav(tmp_path / "tracks" / "v.wav")) / SAMPLE_RATE == pytest.approx(2, abs=0.1)


def test_annotations_beyond_the_end_of_the_audio_are_reported(tmp_path, capsys):
    videos = make_video(tmp_path / "videos" / "v.mp4", 25, noise(25)).parent
    csv = augmented(tmp_path, rows_of("v", 0, 75))
    assert exit_status(extract_audio_tracks.main, videos, csv, tmp_path / "tracks") == 0
    capsys.readouterr()
    assert exit_status(slice_audio_tracks.main, tmp_path / "tracks", csv, tmp_path / "audio") == 1
    message = table(capsys.readouterr().err)["v"]
    assert all(fact in message for fact in ("v_0000_0060:1", "3.00 s"))
    assert not tree(tmp_path / "audio")


def test_real_unusual_videos(unusual, tmp_path, capsys):
    names = sorted(path.stem for path in unusual.iterdir())
    csv = augmented(tmp_path, [line for name in names for line in rows_of(name, 5, 65, 3)[::10]])
    beyond_the_cut = augmented(tmp_path / "long", rows_of("truncated-middle", 5, 120, 3)[::10])
    capsys.readouterr()
    assert exit_status(extract_audio_tracks.main, unusual, csv, tmp_path / "tracks") == 1
    broken = set(table(capsys.readouterr().err))
    assert broken - {"truncated-middle"} == {"no-audio-track", "truncated-index-lost", "zero-bytes"}
    assert exit_status(extract_face_crops_time.main, unusual, csv, tmp_path / "crops", "--size", 16) == 1
    assert set(table(capsys.readouterr().err)) == {"truncated-index-lost", "zero-bytes"}
    out = tmp_path / "long" / "crops"
    assert exit_status(extract_face_crops_time.main, unusual, beyond_the_cut, out, "--size", 16) == 1
    assert "truncated-middle" in table(capsys.readouterr().err)
    assert files(out) == set()


# A full disk


@contextlib.contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Writing more than `size` bytes into a file fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(
    ("script", "options", "room"),
    [*((script, (), 8000) for script in SCRIPTS), ("extract_face_crops_time", ("--layout", "folders"), 300)],
)
def test_a_full_disk_leaves_whole_files_and_the_next_run_completes(steps, tmp_path, capsys, script, options, room):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert exit_status(*steps("train", whole)[script], *options) == 0
    step = (*steps("train", out)[script], *options)
    with no_room_beyond(room):
        assert "no space left to write" in only_error(capsys, *step)
    assert tree(out).items() <= tree(whole).items()
    assert exit_status(*step) == 0
    assert tree(out) == tree(whole)


# Processes of their own


def script(*arguments: object, group: bool = False) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *(str(argument) for argument in arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )


def test_scripts_run_as_files(steps, prepared, tmp_path):
    started = {name: script(f"data/{name}.py", *words) for name, (_, *words) in steps("val", tmp_path).items()}
    for name, process in started.items():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{name}: {err}"
        assert out
    assert tree(tmp_path) == {name: content for name, content in tree(prepared).items() if "/val" in name}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run_as_modules(monkeypatch, capsys, name):
    """`python -m data.NAME` without its start-up time: the module is run as the main one."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"data.{name}")
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"data.{name}", run_name="__main__", alter_sys=True)
    assert end.value.code == 0
    assert f"python data/{name}.py" in capsys.readouterr().out


def unnamed_files(folder: Path) -> Iterator[str]:
    """The files without names, and not empty, that processes of Linux have open in a folder."""
    for handle in glob.iglob("/proc/[0-9]*/fd/*"):  # which minds processes that end meanwhile; Path.glob does not
        with contextlib.suppress(OSError):  # closed meanwhile, or of another user
            name = os.readlink(handle)
            if name.startswith(f"{folder}/") and name.endswith(" (deleted)") and os.stat(handle).st_size:
                yield handle


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> Path:
    """`videos/` with a short video and one of some seconds of work, and `all.csv`."""
    folder = tmp_path_factory.mktemp("long")
    make_video(folder / "videos" / "long.mp4", 1200)
    make_video(folder / "videos" / "a_short.mp4", 5)
    lines = [line for face in (1, 2, 3) for line in rows_of("long", 0, 1199, face)]
    augmented(folder, [*lines, *rows_of("a_short", 0, 4)])
    return folder


@pytest.mark.parametrize(("sent", "jobs"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGKILL, 1)])
def test_a_process_ended_in_the_middle_leaves_whole_files(long_video, tmp_path, sent, jobs):
    """With two jobs one worker waits for work, or is still starting, when the signal comes."""
    out = tmp_path / "crops"
    arguments = (long_video / "videos", long_video / "all.csv", out)
    process = script("data/extract_face_crops_time.py", *arguments, "--jobs", jobs, group=True)
    # Finished is what its record says is finished, a moment after the file is there. The signal comes when crops are
    # cut: before, NumPy and pandas look at types, and there they drop whatever exception comes, an interrupt too.
    begun = unnamed_files if sys.platform == "linux" else lambda folder: folder.glob(".part-*.arrow")
    while not ((read_record(out, "a_short") or {}).get("outputs") and list(begun(out))):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    assert list(out.glob(".part-*.arrow"))
    os.killpg(process.pid, sent)  # as a terminal sends Ctrl-C: to the workers too
    _, err = process.communicate(timeout=60)
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {"a_short.arrow"}
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command again to go on" in err
        assert "Traceback" not in err
        assert files(out) == {"a_short.arrow"}  # no half files under other names either
    else:
        assert process.returncode == -signal.SIGKILL
    before = (out / "a_short.arrow").stat().st_mtime_ns
    assert exit_status(extract_face_crops_time.main, *arguments) == 0
    assert (out / "a_short.arrow").stat().st_mtime_ns == before
    rows = ava.read_augmented(long_video / "all.csv")
    for video in ("a_short", "long"):
        stored = pa.ipc.open_file(str(out / f"{video}.arrow")).read_all()
        assert stored.num_rows == (rows["video_id"] == video).sum()
        assert all(len(jpeg) > 100 for jpeg in stored["jpeg"].to_pylist())


@pytest.mark.parametrize(("stream", "amplitude"), [(None, 2000), ("0", 8000), ("all", np.hypot(2000, 8000))])
def test_the_audio_of_a_stream(tmp_path, stream, amplitude):
    of_streams(tmp_path / "a.mkv", [(64, 0, "")], [(tone(8000), ""), (tone(2000, 500), "default")])
    csv = augmented(tmp_path, rows_of("a", 0, 5))
    chosen = [] if stream is None else ["--audio-stream", stream]
    assert exit_status(extract_audio_tracks.main, tmp_path, csv, tmp_path / "tracks") == 0
    assert exit_status(extract_audio_tracks.main, tmp_path, csv, tmp_path / "tracks", *chosen) == 0  # made anew
    assert strength(np.array(read_wav(tmp_path / "tracks" / "a.wav"))) == pytest.approx(amplitude, rel=0.05)


@pytest.mark.parametrize(("stream", "number"), [(None, 60), ("0", 10)])
def test_the_crops_of_a_stream(tmp_path, stream, number):
    of_streams(tmp_path / "a.mkv", [(64, 10, ""), (64, 60, "default")], [])
    csv = augmented(tmp_path, rows_of("a", 0, 5))
    chosen = [] if stream is None else ["--video-stream", stream]
    assert exit_status(extract_face_crops_time.main, tmp_path, csv, tmp_path / "crops", *chosen) == 0
    assert number_of(Crops(tmp_path / "crops", ava.read_augmented(csv)).decode(0)) == number


@pytest.mark.parametrize(("script", "kind"), [(extract_audio_tracks, "audio"), (extract_face_crops_time, "video")])
def test_a_stream_that_no_video_has_is_a_mistake(tmp_path, capsys, script, kind):
    of_streams(tmp_path / "a.mkv", [(64, 10, "")], [(tone(2000), "")])
    csv = augmented(tmp_path, [*rows_of("a", 0, 5), *rows_of("absent", 0, 5)])
    assert exit_status(script.main, tmp_path, csv, tmp_path / "out", f"--{kind}-stream", "1") == 2
    assert f"a.mkv: {kind} stream 1: the file has one, number 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stream", ["-1", "second", "1.0"])
def test_a_stream_that_is_none_is_refused(tmp_path, stream, capsys):
    arguments = (tmp_path, tmp_path / "a.csv", tmp_path / "out", f"--audio-stream={stream}")
    assert exit_status(extract_audio_tracks.main, *arguments) == 2
    assert "0, or all" in capsys.readouterr().err
