"""The scripts of data/: what they write, how they fail, how they go on after an interrupt or a full disk."""

import contextlib
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
from tiny import BOXES, CLIPS, CROP_SIZE, FPS, HEIGHT, WIDTH, annotation_row, exit_status, picture, write_annotations

from core.formats import ava
from core.formats.crop_store import Crops, is_extracted
from core.formats.wav import SAMPLE_RATE, read_wav, write_wav
from core.media.video_writer import write_video
from data import augment_annotations, extract_audio_tracks, extract_face_crops_time, slice_audio_tracks

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("augment_annotations", "extract_audio_tracks", "slice_audio_tracks", "extract_face_crops_time")


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


def only_error(capsys: pytest.CaptureFixture) -> str:
    """What a script printed to stderr, which is one message and no traceback."""
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert "Traceback" not in text
    assert text.count("error: ") == 1
    return text


def table(text: str) -> dict[str, str]:
    """The broken videos of a script's last lines: video id -> message."""
    assert "Traceback" not in text
    lines = text[text.index("could not be used; the others are finished:") :].splitlines()[1:]
    return dict(line.strip().split(": ", 1) for line in lines)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


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


def test_sounds_of_entities_begin_at_their_first_timestamp(prepared):
    for clip in CLIPS:
        track = read_wav(prepared / "tracks" / clip.split / f"{clip.video_id}.wav")
        for face in clip.faces:
            sound = read_wav(prepared / "audio" / clip.split / f"{face.entity_id}.wav")
            first, last = (number * SAMPLE_RATE // FPS for number in (face.first, face.last))
            np.testing.assert_array_equal(sound, track[first:last])
            assert len(sound) == last - first  # none for the entity with one row


def test_a_click_is_heard_in_the_slice_where_it_is_in_the_video(tmp_path):
    sound = np.zeros(2 * SAMPLE_RATE, np.int16)
    sound[round(0.6 * SAMPLE_RATE) :][:32] = 20_000
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "v.mp4", (picture(number) for number in range(50)), FPS, sound)
    csv = augmented(tmp_path, [*rows_of("v", 13, 40), *rows_of("v", 2, 48, entity=2)])
    assert exit_status(extract_audio_tracks.main, tmp_path / "videos", csv, tmp_path / "tracks") == 0
    assert exit_status(slice_audio_tracks.main, tmp_path / "tracks", csv, tmp_path / "audio") == 0
    for entity, first in ((1, 13), (2, 2)):
        samples = np.abs(read_wav(tmp_path / "audio" / f"v_0000_0060:{entity}.wav").astype(np.int32))
        assert int((samples > 6000).argmax()) / SAMPLE_RATE == pytest.approx(0.6 - first / FPS, abs=0.003)


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
    (tmp_path / "videos").mkdir()
    write_video(
        tmp_path / "videos" / "-v.mkv", (picture(number) for number in range(10)), FPS, np.zeros(6400, np.int16)
    )
    csv = augmented(tmp_path, rows_of("-v", 0, 8))
    assert exit_status(extract_audio_tracks.main, tmp_path / "videos", csv, tmp_path / "tracks") == 0
    assert exit_status(extract_face_crops_time.main, tmp_path / "videos", csv, tmp_path / "crops", "--size", 16) == 0
    assert files(tmp_path / "tracks") == {"-v.wav"}
    assert files(tmp_path / "crops") == {"-v.arrow"}


# Finished work is kept, unfinished work is done


def test_what_is_done_is_not_done_again(tiny_set, prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in copy.rglob("*") if path.is_file()}
    csv, videos = copy / "csv" / "train.csv", tiny_set / "videos" / "train"
    missing = [copy / "tracks" / "train" / "-tinyTrain1.wav", copy / "audio" / "train" / "tinyTrain_2_0000_0060:2.wav"]
    missing.append(copy / "crops" / "train" / "tinyTrain_2.arrow")
    for path in missing:
        path.unlink()
    assert exit_status(extract_audio_tracks.main, videos, csv, copy / "tracks" / "train") == 0
    assert exit_status(slice_audio_tracks.main, copy / "tracks" / "train", csv, copy / "audio" / "train") == 0
    crops = copy / "crops" / "train"
    assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", CROP_SIZE) == 0
    for path, was in before.items():
        now = (path.stat().st_mtime_ns, path.stat().st_ino)
        assert (now == was) == (path not in missing), path
        assert path.read_bytes() == (prepared / path.relative_to(copy)).read_bytes()


def test_crops_of_other_rows_or_another_size_are_cut_again(tiny_set, prepared, tmp_path):
    crops = shutil.copytree(prepared / "crops" / "val", tmp_path / "crops")
    lines = (prepared / "csv" / "val.csv").read_text().splitlines()
    csv = write_annotations(tmp_path / "fewer.csv", lines[:-1])
    videos = tiny_set / "videos" / "val"
    assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", CROP_SIZE) == 0
    assert Crops(crops, ava.read_augmented(csv)).decode(0, CROP_SIZE).shape == (CROP_SIZE, CROP_SIZE, 3)
    assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", 16) == 0
    assert is_extracted(ava.read_augmented(csv), crops, 16, "packed")


def test_shares_make_up_the_whole(tiny_set, prepared, tmp_path):
    csv, videos = prepared / "csv" / "train.csv", tiny_set / "videos" / "train"
    assert exit_status(extract_audio_tracks.main, videos, csv, tmp_path, "--shard", "2/2") == 0
    assert files(tmp_path) == {"tinyTrain_2.wav"}
    assert exit_status(extract_audio_tracks.main, videos, csv, tmp_path, "--shard", "1/2") == 0
    assert files(tmp_path) == {"tinyTrain_2.wav", "-tinyTrain1.wav"}


# Mistakes of the user: status 2, one message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "mpty"),
        (["v,0.00,0.1,0.1,0.2,0.2,NOT_SPEAKING,v:1"] * 2, "line 2: "),
    ],
)
def test_bad_annotations_are_refused_before_anything_is_written(tmp_path, capsys, rows, message):
    annotations = write_annotations(tmp_path / "annotations" / "v-activespeaker.csv", rows)
    assert exit_status(augment_annotations.main, annotations.parent, tmp_path / "out" / "v.csv") == 2
    text = only_error(capsys)
    assert f"{annotations}" in text
    assert message in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", [extract_audio_tracks, slice_audio_tracks, extract_face_crops_time])
def test_an_input_csv_that_is_not_augmented_is_refused(tiny_set, tmp_path, capsys, script):
    plain = tiny_set / "annotations" / "val" / "tinyVal_001-activespeaker.csv"
    assert exit_status(script.main, tiny_set / "videos" / "val", plain, tmp_path / "out") == 2
    assert "make the file with data/augment_annotations.py" in only_error(capsys)
    assert exit_status(script.main, tiny_set / "videos" / "val", tmp_path / "absent.csv", tmp_path / "out") == 2
    assert "absent.csv" in only_error(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", [extract_audio_tracks, slice_audio_tracks, extract_face_crops_time])
@pytest.mark.parametrize(
    ("options", "message"),
    [(("--jobs", 0), "--jobs 0: expected 1 or more"), (("--shard", "3/2"), "--shard 3/2: expected I/N")],
)
def test_options_that_cannot_be_are_refused(tiny_set, prepared, tmp_path, capsys, script, options, message):
    videos = (prepared / "tracks" if script is slice_audio_tracks else tiny_set / "videos") / "val"
    assert exit_status(script.main, videos, prepared / "csv" / "val.csv", tmp_path / "out", *options) == 2
    assert message in only_error(capsys)


def test_a_negative_size_is_refused(tiny_set, prepared, tmp_path, capsys):
    arguments = (tiny_set / "videos" / "val", prepared / "csv" / "val.csv", tmp_path / "out", "--size=-1")
    assert exit_status(extract_face_crops_time.main, *arguments) == 2
    assert "--size -1" in only_error(capsys)


def test_an_output_that_cannot_be_written_is_refused(tiny_set, prepared, tmp_path, capsys):
    (tmp_path / "file").touch()
    csv, videos = prepared / "csv" / "val.csv", tiny_set / "videos" / "val"
    for script, source in (
        (extract_audio_tracks, videos),
        (slice_audio_tracks, prepared / "tracks" / "val"),
        (extract_face_crops_time, videos),
    ):
        assert exit_status(script.main, source, csv, tmp_path / "file" / "out") == 2
        assert f"cannot create the folder {tmp_path / 'file' / 'out'}" in only_error(capsys)


def test_a_wav_of_another_rate_is_refused(prepared, tmp_path, capsys):
    """Tracks that somebody else extracted at 44.1 kHz would put every sound at another time."""
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    scipy.io.wavfile.write(tracks / "tinyVal_001.wav", 44_100, np.zeros(88_200, np.int16))
    assert exit_status(slice_audio_tracks.main, tracks, prepared / "csv" / "val.csv", tmp_path / "out") == 2
    assert "has 44100 Hz, 1 channel(s), int16: expected 16000 Hz mono int16" in only_error(capsys)
    assert not (tmp_path / "out").exists()


# Broken videos: status 1, the others finished, a table at the end


@pytest.fixture
def damaged(tmp_path) -> Path:
    """Videos of all kinds and `all.csv`, which calls for frames 0 to 20 of each."""
    videos = tmp_path / "videos"
    videos.mkdir()
    sound = np.random.default_rng(0).integers(-3000, 3000, 25 * 640).astype(np.int16)
    for name in ("-good", "good", "cut", "half"):
        write_video(videos / f"{name}.mp4", (picture(number) for number in range(25)), FPS, sound)
    write_video(videos / "mute.mp4", (picture(number) for number in range(25)), FPS)
    write_video(videos / "short.mp4", (picture(number) for number in range(10)), FPS, sound[: 10 * 640])
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video\n" * 50)
    whole = (videos / "cut.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at its end
    data = bytearray(whole)
    media = data.index(b"mdat") + 4
    data[media + 200 : media + 200 + (len(data) - media) // 2] = bytes((len(data) - media) // 2)
    (videos / "half.mp4").write_bytes(data)  # whole index, damaged pictures and sound
    names = ("-good", "absent", "cut", "empty", "good", "half", "mute", "short", "text")
    augmented(tmp_path, [line for name in names for line in rows_of(name, 0, 20)])
    return tmp_path


def test_broken_videos_among_many(damaged, capsys):
    videos, csv = damaged / "videos", damaged / "all.csv"
    capsys.readouterr()
    assert exit_status(extract_audio_tracks.main, videos, csv, damaged / "tracks") == 1
    printed = capsys.readouterr()
    broken = table(printed.err)
    assert "cannot be opened" in broken["cut"]
    assert "is empty (0 bytes)" in broken["empty"]
    assert "has no audio stream" in broken["mute"]
    assert "cannot be opened" in broken["text"]
    assert f"no video absent in {videos}" in broken["absent"]
    assert set(broken) - {"half"} == {"absent", "cut", "empty", "mute", "text"}
    assert "error" not in printed.out
    whole = {"-good.wav", "good.wav", "short.wav"}
    assert files(damaged / "tracks") - {"half.wav"} == whole

    assert exit_status(extract_face_crops_time.main, videos, csv, damaged / "crops", "--size", 16) == 1
    broken = table(capsys.readouterr().err)
    assert "the video ends at 0.36 s, but entity short_0000_0060:1 is annotated at 0.44 s" in broken["short"]
    assert set(broken) - {"half"} == {"absent", "cut", "empty", "short", "text"}
    assert files(damaged / "crops") - {"half.arrow"} == {"-good.arrow", "good.arrow", "mute.arrow"}

    assert exit_status(slice_audio_tracks.main, damaged / "tracks", csv, damaged / "audio") == 1
    broken = table(capsys.readouterr().err)
    assert "data/extract_audio_tracks.py must have finished this video first" in broken["empty"]
    assert {"-good_0000_0060:1.wav", "good_0000_0060:1.wav"} <= files(damaged / "audio")


def test_the_next_run_does_what_was_mended(damaged, capsys):
    videos, csv, crops = damaged / "videos", damaged / "all.csv", damaged / "crops"
    assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", 16) == 1
    for name in ("absent", "cut", "empty", "half", "short", "text"):
        shutil.copy(videos / "good.mp4", videos / f"{name}.mp4")
    assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", 16) == 0
    assert {f"{name}.arrow" for name in ("absent", "cut", "empty", "half", "short", "text")} <= files(crops)


def test_annotations_beyond_the_end_of_the_sound_are_told(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    frames, sound = (picture(number) for number in range(25)), np.zeros(SAMPLE_RATE, np.int16)
    write_video(tmp_path / "videos" / "v.mp4", frames, FPS, sound)
    csv = augmented(tmp_path, rows_of("v", 0, 75))
    assert exit_status(extract_audio_tracks.main, tmp_path / "videos", csv, tmp_path / "tracks") == 0
    capsys.readouterr()
    assert exit_status(slice_audio_tracks.main, tmp_path / "tracks", csv, tmp_path / "audio") == 1
    assert "but entity v_0000_0060:1 is annotated until 3.00 s" in table(capsys.readouterr().err)["v"]
    assert not (tmp_path / "audio").exists()


def test_a_track_with_missing_end_is_cut_where_it_ends(tmp_path):
    """A sound track some tens of milliseconds shorter than the picture is usual."""
    (tmp_path / "videos").mkdir()
    frames, sound = (picture(number) for number in range(50)), np.full(int(1.9 * SAMPLE_RATE), 1000, np.int16)
    write_video(tmp_path / "videos" / "v.mp4", frames, FPS, sound)
    csv = augmented(tmp_path, rows_of("v", 0, 49))
    assert exit_status(extract_audio_tracks.main, tmp_path / "videos", csv, tmp_path / "tracks") == 0
    assert exit_status(slice_audio_tracks.main, tmp_path / "tracks", csv, tmp_path / "audio") == 0
    assert 1.9 <= len(read_wav(tmp_path / "audio" / "v_0000_0060:1.wav")) / SAMPLE_RATE <= 1.96


def test_real_unusual_videos(shared, tmp_path, capsys):
    videos = shared / "mini-ava" / "unusual"
    if not videos.is_dir():
        pytest.skip(f"{videos} is absent")
    names = sorted(path.stem for path in videos.iterdir())
    csv = augmented(tmp_path, [line for name in names for line in rows_of(name, 5, 65, 3)[::10]])
    beyond_the_cut = augmented(tmp_path / "long", rows_of("truncated-middle", 5, 120, 3)[::10])
    capsys.readouterr()
    assert exit_status(extract_audio_tracks.main, videos, csv, tmp_path / "tracks") == 1
    broken = table(capsys.readouterr().err)
    assert {"no-audio-track", "truncated-index-lost", "zero-bytes"} <= set(broken)
    assert set(broken) <= {"no-audio-track", "truncated-index-lost", "zero-bytes", "truncated-middle"}
    assert exit_status(extract_face_crops_time.main, videos, csv, tmp_path / "crops", "--size", 16) == 1
    assert set(table(capsys.readouterr().err)) == {"truncated-index-lost", "zero-bytes"}
    out = tmp_path / "long" / "crops"
    assert exit_status(extract_face_crops_time.main, videos, beyond_the_cut, out, "--size", 16) == 1
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


@pytest.mark.parametrize("step", ["augment", "tracks", "slices", "packed", "folders"])
def test_a_full_disk_leaves_whole_files_and_the_next_run_completes(tiny_set, prepared, tmp_path, capsys, step):
    videos, csv = tiny_set / "videos" / "train", prepared / "csv" / "train.csv"
    crops = ("--size", CROP_SIZE, "--layout")
    out = tmp_path / "out"
    runs: dict[str, tuple[Callable, tuple, Path]] = {
        "augment": (augment_annotations.main, (tiny_set / "annotations" / "train", out / "train.csv"), "csv"),
        "tracks": (extract_audio_tracks.main, (videos, csv, out), "tracks"),
        "slices": (slice_audio_tracks.main, (prepared / "tracks" / "train", csv, out), "audio"),
        "packed": (extract_face_crops_time.main, (videos, csv, out, *crops, "packed"), "crops"),
        "folders": (extract_face_crops_time.main, (videos, csv, out, *crops, "folders"), None),
    }
    main, arguments, folder = runs[step]
    with no_room_beyond(300 if step == "folders" else 8000):
        status = exit_status(main, *arguments)
    assert status == 2
    assert "no space left to write" in only_error(capsys)
    left = files(out)
    assert not any(Path(name).name.startswith(".") for name in left)
    for name in left:  # whatever was finished is whole
        assert folder is None or (out / name).read_bytes() == (prepared / folder / "train" / name).read_bytes()
    assert exit_status(main, *arguments) == 0
    if folder == "csv":
        assert (out / "train.csv").read_bytes() == csv.read_bytes()
    elif folder is not None:
        expected = prepared / folder / "train"
        assert files(out) == files(expected)
        assert all((out / name).read_bytes() == (expected / name).read_bytes() for name in files(expected))
    else:
        assert is_extracted(ava.read_augmented(csv), out, CROP_SIZE, "folders")


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


def test_scripts_run_as_files(tiny_set, prepared, tmp_path):
    videos, csv = tiny_set / "videos" / "val", prepared / "csv" / "val.csv"
    arguments = {
        "augment_annotations": (tiny_set / "annotations" / "val", tmp_path / "val.csv"),
        "extract_audio_tracks": (videos, csv, tmp_path / "tracks"),
        "slice_audio_tracks": (prepared / "tracks" / "val", csv, tmp_path / "audio"),
        "extract_face_crops_time": (videos, csv, tmp_path / "crops", "--size", "16"),
    }
    for name, process in [(name, script(f"data/{name}.py", *arguments[name])) for name in SCRIPTS]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{name}: {err}"
        assert out
    assert files(tmp_path) == {
        "val.csv",
        "tracks/tinyVal_001.wav",
        "crops/tinyVal_001.arrow",
        *(f"audio/tinyVal_001_0000_0060:{entity}.wav" for entity in (1, 2, 3)),
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run_as_modules(monkeypatch, capsys, name):
    """`python -m data.NAME` without its start-up time: the module is run as the main one."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"data.{name}")
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"data.{name}", run_name="__main__", alter_sys=True)
    assert end.value.code == 0
    assert f"python data/{name}.py" in capsys.readouterr().out


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> Path:
    """`videos/` with a short video and one of some seconds of work, and `all.csv`."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "videos").mkdir()
    pictures = [picture(number) for number in range(50)]
    write_video(folder / "videos" / "long.mp4", (pictures[number % 50] for number in range(1200)), FPS)
    write_video(folder / "videos" / "a_short.mp4", pictures[:5], FPS)
    lines = [line for face in (1, 2, 3) for line in rows_of("long", 0, 1199, face)]
    augmented(folder, [*lines, *rows_of("a_short", 0, 4)])
    return folder


@pytest.mark.parametrize(("sent", "jobs"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGKILL, 1)])
def test_a_process_ended_in_the_middle_leaves_whole_files(long_video, tmp_path, sent, jobs):
    """With two jobs one worker waits for work, or is still starting, when the signal comes."""
    out = tmp_path / "crops"
    arguments = (long_video / "videos", long_video / "all.csv", out)
    process = script("data/extract_face_crops_time.py", *arguments, "--jobs", jobs, group=True)
    while not ((out / "a_short.arrow").exists() and list(out.glob(".part-*"))):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
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


def test_a_sound_of_other_annotations_is_cut_again(prepared: Path, tmp_path: Path) -> None:
    """A wav that is there but holds another stretch of the video's sound would shift what the encoder hears."""
    csv, tracks = prepared / "csv" / "val.csv", prepared / "tracks" / "val"
    assert exit_status(slice_audio_tracks.main, tracks, csv, tmp_path) == 0
    wav = sorted(tmp_path.glob("*.wav"))[0]
    right = read_wav(wav).copy()
    write_wav(wav, np.roll(right, 800))
    assert exit_status(slice_audio_tracks.main, tracks, csv, tmp_path) == 0
    np.testing.assert_array_equal(read_wav(wav), right)
