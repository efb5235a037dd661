"""ava-extract on the tiny set: frames, sound, faces, MFCCs, windows; what is there is kept, what is broken is told."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import scipy.io.wavfile
from ava_asd_set import lay_out, run_extract, write_config
from tiny import BOXES, CLIPS, FPS, HEIGHT, WIDTH, brightness, exit_status

from ava_asd import extract, extract_videos
from ava_asd.config import read_config
from ava_asd.extract_videos import FaceCutter, extract_audio, sampled
from ava_asd.layout import video_folder
from ava_asd.mfcc import mfcc
from ava_asd.samples import read_samples
from ava_asd.stores import read_faces
from ava_asd.tracks import face_grid
from ava_asd.windows import Windows
from core.formats.ava import read_annotations
from core.media.audio import decode_audio
from core.media.container import MediaFile
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_USER_ERROR, UserError
from core.runtime.files import atomic_write

FIRST = {"-tinyTrain1": 4, "tinyTrain_2": 0, "tinyVal_001": 1}  # video frame of 1.jpg: one (eps) before the first face
CLIP = {clip.video_id: clip for clip in CLIPS}
COMMAND = "ava-extract annotations"


@pytest.fixture
def config(static_set):
    return read_config(static_set / "config.yaml")


@pytest.fixture
def laid_out(tiny_set, tmp_path):
    """A configuration and a data folder in which nothing is extracted yet."""
    lay_out(tiny_set, tmp_path / "data")
    return write_config(tmp_path / "config.yaml"), tmp_path / "data"


def folders(static_set: Path, config) -> dict:
    return {name: video_folder(config, static_set / "data", name) for name in CLIP}


@pytest.mark.parametrize("name", CLIP)
def test_frames_are_numbered_from_the_first_annotated_time_less_eps(static_set, config, name):
    folder = folders(static_set, config)[name]
    assert folder.start_s() == pytest.approx(FIRST[name] / FPS)
    numbers = sorted(int(path.stem) for path in folder.path.glob("*.jpg"))
    last = max(face.last for face in CLIP[name].faces) + 1
    assert numbers == list(range(1, min(last, CLIP[name].frames - 1) - FIRST[name] + 2))
    for number in (numbers[0], numbers[len(numbers) // 2], numbers[-1]):
        pixels = cv2.imread(str(folder.frame(number)), cv2.IMREAD_GRAYSCALE)
        assert pixels.shape == (HEIGHT, WIDTH)
        x1, y1, x2, y2 = BOXES[0]
        shown = brightness(FIRST[name] + number - 1, 0)
        assert pixels[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4].mean() == pytest.approx(shown, abs=4)


@pytest.mark.parametrize("name", CLIP)
def test_sound_begins_with_the_frames(static_set, config, name):
    rate, samples = scipy.io.wavfile.read(folders(static_set, config)[name].audio)
    assert rate == 16000
    whole = np.concatenate(list(decode_audio(MediaFile(static_set / "data" / config.vid_save_path / f"{name}.mp4"))))
    first = FIRST[name] * rate // FPS
    last = (max(face.last for face in CLIP[name].faces) + 1) * rate // FPS
    np.testing.assert_array_equal(samples, whole[first:last])


def test_sound_keeps_the_sample_rate_of_the_video(shared, tmp_path):
    extract_audio(MediaFile(shared / "mini-ava" / "unusual" / "audio-44.1k-stereo.mp4"), tmp_path / "a.wav", 0.5, 1.0)
    rate, samples = scipy.io.wavfile.read(tmp_path / "a.wav")
    assert rate == 44100
    assert samples.shape == (22050,)


@pytest.mark.parametrize("name", CLIP)
def test_each_crop_shows_its_face_in_its_frame(static_set, config, name):
    folder = folders(static_set, config)[name]
    faces, crops = read_faces(folder.faces).to_pylist(), np.load(folder.crops)
    assert crops.shape == (len(faces), 1, 18, 24)
    assert len(faces) == sum(face.last - face.first + 1 for face in CLIP[name].faces)
    for face, crop in zip(faces, crops, strict=True):
        of_video = int(face["entity_id"].rpartition(":")[2]) - 1
        x1, y1, x2, y2 = BOXES[of_video]
        assert (face["width"], face["height"]) == (x2 - x1, y2 - y1)
        # The published rule takes the frame before, if there is one.
        shown = max(round(face["time_s"] * FPS) - 1, FIRST[name])
        assert face["frame"] == shown - FIRST[name] + 1
        assert crop[0, 4:-4, 4:-4].mean() == pytest.approx(brightness(shown, of_video), abs=4)


def test_colour_is_kept_blue_before_red(tiny_set, tmp_path):
    class RedFrame:
        width, height = WIDTH, HEIGHT

        def bgr_region(self, x1, y1, x2, y2):
            return np.full((y2 - y1, x2 - x1, 3), (10, 20, 200), np.uint8)

    csv = next((tiny_set / "annotations" / "val").iterdir())
    faces = face_grid(read_annotations(csv), 25).assign(frame=1)
    config = replace(read_config(write_config(tmp_path / "config.yaml")), channels=3)
    with (tmp_path / "crops.npy").open("wb") as file:
        FaceCutter(file, faces, config).cut(1, RedFrame())
    crops = np.load(tmp_path / "crops.npy")
    assert crops.shape == (len(faces), 3, 18, 24)
    assert (crops == np.array([10, 20, 200]).reshape(3, 1, 1)).all()


class At:
    """A frame of which only the time matters."""

    def __init__(self, time_s: float):
        self.time_s = time_s


@pytest.mark.parametrize(
    ("times", "fps", "count", "expected"),
    [
        # FFmpeg's fps filter: the last frame before the middle of each slot
        ([0, 0.04, 0.08, 0.12, 0.16, 0.20, 0.24, 0.28], 10, 3, [0.04, 0.12, 0.24]),
        ([0, 0.5], 4, 9, [0, 0, 0.5]),  # repeated; no slot begins after the last frame
        ([0.3, 0.4], 10, 4, [0.3, 0.3, 0.3, 0.3]),  # a picture that begins late
        ([], 10, 4, []),
    ],
)
def test_frames_are_sampled(times, fps, count, expected):
    found = list(sampled(map(At, times), 0.0, fps, count))
    assert [number for number, _ in found] == list(range(1, len(expected) + 1))
    assert [frame.time_s for _, frame in found] == expected


def test_mfccs_are_those_of_the_sound_normalised(static_set, config):
    folder = folders(static_set, config)["-tinyTrain1"]
    found = np.load(folder.mfccs)
    _, samples = scipy.io.wavfile.read(folder.audio)
    expected = mfcc(samples / np.float32(32768), 16000, 13, 0.025, 0.01)
    assert found.shape == expected.shape == (13, 1 + len(samples) // 160)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=1), 1, atol=1e-4)
    assert np.corrcoef(found[3], expected[3])[0, 1] == pytest.approx(1)


def test_windows_of_each_track(static_set, config):
    for split, names in (("train", ["-tinyTrain1", "tinyTrain_2"]), ("test", ["tinyVal_001"])):
        key = f"{split}_annotations_full"
        table = read_samples(config.path(static_set / "data", key), config, COMMAND).table.to_pylist()
        expected = []
        for name in names:
            row = 0
            for face in CLIP[name].faces:
                length = face.last - face.first + 1
                for begin in range(0, length - 4, 3):
                    last = face.first + begin + 4
                    label = face.labels[(last - face.first) // 5 % len(face.labels)]
                    expected.append((name, face.entity_id, round(last / FPS, 2), label, row + begin))
                row += length
        found = [tuple(row[name] for name in ("video_id", "entity_id", "time_s", "label", "first")) for row in table]
        assert found == expected
        assert all(row["smallest_side"] in (20, 24, 30) for row in table)


def test_what_is_there_is_left_alone_and_other_settings_are_noticed(laid_out):
    config, data = laid_out
    assert run_extract(config, data) == [0, 0, 0]
    folder = video_folder(read_config(config), data, "tinyVal_001")
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert run_extract(config, data, "videos", "mfccs") == [0, 0]
    assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before

    write_config(config, width=20, fps=12.5)
    assert run_extract(config, data, "annotations") == [EXIT_USER_ERROR]
    assert run_extract(config, data, "videos", "annotations") == [0, 0]
    assert np.load(folder.crops).shape[2:] == (18, 20)
    assert len(list(folder.path.glob("*.jpg"))) == 19  # 0.04 to 1.48 s; those of the first extraction are gone


def test_another_video_of_the_same_name_is_noticed_and_an_absent_one_is_not_asked_for(laid_out):
    config, data = laid_out
    assert run_extract(config, data) == [0, 0, 0]
    folder = video_folder(read_config(config), data, "tinyVal_001")
    before, videos = np.load(folder.crops), data / read_config(config).vid_save_path
    shutil.copy(videos / "-tinyTrain1.mp4", videos / "tinyVal_001.mp4")
    assert run_extract(config, data, "videos") == [0]
    after = np.load(folder.crops)
    assert after.shape == before.shape
    assert (after != before).any()
    assert not (folder.path / "mfccs.json").exists()  # they are of another sound, whatever its length
    shutil.rmtree(videos)
    videos.mkdir()
    assert run_extract(config, data) == [0, 0, 0]
    np.testing.assert_array_equal(np.load(folder.crops), after)


@pytest.mark.parametrize("version", [None, 1])
def test_mfccs_of_another_version_are_refused_and_made_anew(static_set, tmp_path, version):
    data = shutil.copytree(static_set / "data", tmp_path / "data")
    path = write_config(tmp_path / "config.yaml")
    folder = video_folder(read_config(path), data, "tinyVal_001")
    whole, made_with = folder.mfccs.read_bytes(), folder.made_with("mfccs")
    made_with.pop("version")  # as those of before have none
    folder.finish("mfccs", made_with if version is None else {**made_with, "version": version})
    np.save(folder.mfccs, np.load(folder.mfccs) + 1)
    with pytest.raises(UserError, match=rf"version {version} instead of 2: run 'ava-extract mfccs' again"):
        Windows(read_config(path), data, "test")
    assert run_extract(path, data, "mfccs") == [0]
    assert folder.mfccs.read_bytes() == whole
    assert len(Windows(read_config(path), data, "test")) == 23


# What is written in place of a file; None takes it away.
DAMAGES = {
    "faces.arrow": (None, b"", b"no table"),
    "crops.npy": (None, b"", b"no array"),
    "audio.wav": (None, b"", b"no wav"),
    "start_ts": (None, b"", b"soon"),
    "mfcc.npy": (None, b"", b"no array"),
    "videos.json": (None, b"", b"[]", b"{}", b'"text"'),
    "mfccs.json": (None, b"", b"[]", b"{}", b'"text"'),
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in DAMAGES for content in DAMAGES[name]])
def test_what_a_message_tells_to_do_mends_it(static_set, tmp_path, name, content):
    data = shutil.copytree(static_set / "data", tmp_path / "data")
    path = write_config(tmp_path / "config.yaml")
    config = read_config(path)
    folder = video_folder(config, data, "tinyVal_001")
    whole = (folder.path / name).read_bytes()
    if content is None:
        (folder.path / name).unlink()
    else:
        (folder.path / name).write_bytes(content)
    told = []
    for _ in range(5):
        try:
            assert len(Windows(config, data, "test")) == 23
            break
        except UserError as error:
            told.append(str(error))
        steps = [step for step in ("videos", "mfccs", "annotations") if f"'ava-extract {step}'" in told[-1]]
        assert len(steps) == 1, told
        assert run_extract(path, data, *steps) == [0], told
    else:
        pytest.fail("\n".join(told))
    assert told or name == "audio.wav"  # the sound itself is not read by a training
    if name == "audio.wav":
        assert run_extract(path, data, "mfccs") == [EXIT_BROKEN_ITEMS]
        assert run_extract(path, data, "videos", "mfccs") == [0, 0]
    assert (folder.path / name).read_bytes() == whole


@pytest.mark.parametrize("name", ["faces.arrow", "crops.npy", "mfcc.npy", "audio.wav", "7.jpg", "1.jpg", "last.jpg"])
def test_files_that_are_cut_off_are_made_anew(static_set, tmp_path, capsys, name):
    data = shutil.copytree(static_set / "data", tmp_path / "data")
    path = write_config(tmp_path / "config.yaml")
    folder = video_folder(read_config(path), data, "tinyVal_001")
    file = folder.path / (name if name != "last.jpg" else f"{len(list(folder.path.glob('*.jpg')))}.jpg")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])
    if name == "audio.wav":  # half of a sound is not taken for the sound
        (folder.path / "mfccs.json").unlink()
        assert run_extract(path, data, "mfccs") == [EXIT_BROKEN_ITEMS]
        assert f"{file} is no readable wav" in capsys.readouterr().err
    assert run_extract(path, data, "videos", "mfccs") == [0, 0]
    assert file.read_bytes() == whole
    if name.endswith(".jpg"):
        file.unlink()
        assert run_extract(path, data, "videos") == [0]
        assert file.read_bytes() == whole


def test_stored_files_that_do_not_fit_are_refused_and_made_anew(static_set, tmp_path, capsys):
    data = shutil.copytree(static_set / "data", tmp_path / "data")
    path = write_config(tmp_path / "config.yaml")
    config = read_config(path)
    folder = video_folder(config, data, "tinyVal_001")

    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words):
            Windows(config, data, "test")
        assert run_extract(path, data, "videos", "mfccs") == [0, 0]
        assert len(Windows(config, data, "test")) == 23

    np.save(folder.crops, np.load(folder.crops)[:-1])
    refused("crops.npy holds uint8 numbers, 76 x 1 x 18 x 24, expected uint8, 77 x 1 x 18 x 24: run 'ava-extract vid")
    np.save(folder.mfccs, np.load(folder.mfccs)[0])
    refused("mfcc.npy holds float32 numbers, .*, expected float32, 13 x any: run 'ava-extract mfccs' again")
    faces = read_faces(folder.faces).drop(["track"])
    with atomic_write(folder.faces) as temporary, pa.ipc.new_file(str(temporary), faces.schema) as writer:
        writer.write_table(faces)  # not onto the file itself, which is mapped
    refused("faces.arrow has no column track: run 'ava-extract videos' again")
    np.save(folder.mfccs, np.load(folder.mfccs)[:, :-1])  # of a shorter sound
    assert run_extract(path, data, "mfccs") == [0]
    assert np.load(folder.mfccs).shape[1] == 1 + len(scipy.io.wavfile.read(folder.audio)[1]) // 160


def test_an_interrupted_extraction_is_made_anew(laid_out):
    config, data = laid_out
    assert run_extract(config, data) == [0, 0, 0]
    folder = video_folder(read_config(config), data, "tinyVal_001")
    (folder.path / "videos.json").unlink()
    folder.crops.write_bytes(b"half")
    assert run_extract(config, data, "videos") == [0]
    assert len(np.load(folder.crops)) == 77


def test_broken_and_absent_videos_do_not_stop_the_others(laid_out, capsys):
    config, data = laid_out
    videos = data / read_config(config).vid_save_path
    (videos / "-tinyTrain1.mp4").unlink()
    shutil.copy(videos / "tinyTrain_2.mp4", videos / "tinyVal_001.mp4")  # 40 frames as well, but of another picture
    (videos / "tinyTrain_2.mp4").write_bytes(b"no video")
    assert run_extract(config, data) == [EXIT_BROKEN_ITEMS, EXIT_BROKEN_ITEMS, EXIT_USER_ERROR]
    told = capsys.readouterr().err
    assert "no video -tinyTrain1 in" in told
    assert "tinyTrain_2.mp4 cannot be opened" in told
    assert "no audio" in told
    assert "no samples for train_annotations_full" in told


@pytest.mark.parametrize("text", [None, "soon"])
def test_a_missing_start_ts_does_not_stop_the_mfccs_of_the_others(laid_out, capsys, text):
    config, data = laid_out
    assert run_extract(config, data, "videos") == [0]
    first = video_folder(read_config(config), data, "-tinyTrain1")  # which is worked on first
    (first.path / "start_ts").unlink()
    if text is not None:
        (first.path / "start_ts").write_text(text)
    assert run_extract(config, data, "mfccs") == [EXIT_BROKEN_ITEMS]
    told = capsys.readouterr()
    assert "2 of 3 videos done" in told.out
    assert "start_ts" in told.err
    assert [video_folder(read_config(config), data, name).mfccs.is_file() for name in CLIP] == [False, True, True]
    assert run_extract(config, data, "videos", "mfccs") == [0, 0]


def test_a_stride_or_window_of_less_than_a_sample(laid_out, capsys):
    config, data = laid_out
    write_config(config, stride=0.001)
    assert run_extract(config, data, "videos") == [0]
    folder = video_folder(read_config(config), data, "tinyVal_001")
    scipy.io.wavfile.write(folder.audio, 500, np.zeros(1000, np.int16))
    assert run_extract(config, data, "mfccs") == [EXIT_BROKEN_ITEMS]
    assert "has 500 samples a second: for a mfcc_window_size of 0.025 s and a stride of 0.001 s these are too few" in (
        capsys.readouterr().err
    )


def test_a_video_that_ends_before_its_faces(laid_out, capsys):
    config, data = laid_out
    csv = data / read_config(config).test_ann_dir / "tinyVal_001-activespeaker.csv"
    row = csv.read_text().splitlines()[-1].split(",")
    row[1] = "7.00"
    csv.write_text(csv.read_text() + ",".join(row) + "\n")
    assert run_extract(config, data, "videos") == [EXIT_BROKEN_ITEMS]
    assert "tinyVal_001.mp4: the frames end before 7.00 s, where entity tinyVal_001_0000_0060:3" in (
        capsys.readouterr().err
    )
    assert not (video_folder(read_config(config), data, "tinyVal_001").path / "videos.json").exists()


def test_a_picture_that_begins_after_a_face(laid_out, monkeypatch, capsys):
    config, data = laid_out
    original = extract_videos.read_frames

    def late(video, start_s, end_s):
        return (frame for frame in original(video, start_s, end_s) if frame.time_s > 0.5)

    monkeypatch.setattr(extract_videos, "read_frames", late)
    assert run_extract(config, data, "videos") == [EXIT_BROKEN_ITEMS]
    assert "tinyVal_001.mp4: the frames begin at 0.52 s, after a face that is annotated" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "soon", "nan"])
def test_a_bad_start_ts(laid_out, capsys, text):
    config, data = laid_out
    assert run_extract(config, data) == [0, 0, 0]
    path = video_folder(read_config(config), data, "tinyVal_001").path / "start_ts"
    path.write_text(text)
    assert run_extract(config, data, "annotations") == [EXIT_USER_ERROR]
    assert f"{path} holds {text!r}, expected seconds" in capsys.readouterr().err
    path.unlink()
    assert run_extract(config, data, "annotations") == [EXIT_USER_ERROR]
    assert f"no {path}, which holds the time of the first frame: run 'ava-extract videos'" in capsys.readouterr().err
    assert run_extract(config, data, "videos", "annotations") == [0, 0]


def test_user_mistakes(laid_out, capsys):
    config, data = laid_out

    def refused(*words: str, step: str = "videos") -> None:
        assert exit_status(extract.main, step, config, data) == EXIT_USER_ERROR
        told = capsys.readouterr().err
        assert told.count("error: ") == 1
        assert all(word in told for word in words)

    refused("no samples for train_annotations_full", "is not extracted: run 'ava-extract videos'", step="annotations")
    test_ann = data / read_config(config).test_ann_dir
    shutil.copy(data / read_config(config).train_ann_dir / "tinyTrain_2-activespeaker.csv", test_ann)
    refused("1 video(s) are in train_ann_dir and in test_ann_dir, tinyTrain_2")
    shutil.rmtree(test_ann)
    refused("no annotation folder", str(test_ann), step="mfccs")
    shutil.rmtree(data / read_config(config).vid_save_path)
    refused("no videos: there is no folder", "run 'ava-download videos', or set vid_save_path")
    shutil.rmtree(data)
    refused(f"no data folder {data}")
