"""ava-extract on the tiny set: frames, audio, faces, MFCCs, windows; what is whole is kept, the rest made anew."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io.wavfile
from ava_asd_set import StaticSet
from tiny import BOXES, CLIPS, FPS, HEIGHT, WIDTH, brightness, tree

from ava_asd import extract_videos
from ava_asd.extract_videos import cut_face, sampled
from ava_asd.mfcc import mfcc
from ava_asd.samples import read_samples
from ava_asd.stores import read_faces
from core.media.audio import decode_audio, extract_audio
from core.media.container import MediaFile
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_USER_ERROR, UserError
from core.runtime.provenance import record_path

FIRST = {"-tinyTrain1": 4, "tinyTrain_2": 0, "tinyVal_001": 1}  # video frame of 1.jpg: one (eps) before the first face
CLIP = {clip.video_id: clip for clip in CLIPS}


@pytest.mark.parametrize("name", CLIP)
def test_frames_are_numbered_from_the_first_annotated_time_less_eps(extracted, name):
    folder = extracted.folder(name)
    assert float(folder.start_ts.read_text()) == pytest.approx(FIRST[name] / FPS)
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
def test_audio_begins_with_the_frames(extracted, name):
    rate, samples = scipy.io.wavfile.read(extracted.folder(name).audio)
    assert rate == 16000
    whole = np.concatenate(list(decode_audio(MediaFile(extracted.at("vid_save_path") / f"{name}.mp4"))))
    last = max(face.last for face in CLIP[name].faces) + 1
    np.testing.assert_array_equal(samples, whole[FIRST[name] * rate // FPS : last * rate // FPS])


def test_audio_keeps_the_sample_rate_of_the_video(shared, tmp_path):
    media = MediaFile(shared / "mini-ava" / "unusual" / "audio-44.1k-stereo.mp4")
    extract_audio(media, tmp_path / "a.wav", start_s=0.5, end_s=1.0, sample_rate=None)
    rate, samples = scipy.io.wavfile.read(tmp_path / "a.wav")
    assert (rate, samples.shape) == (44100, (22050,))


@pytest.mark.parametrize("name", CLIP)
def test_each_crop_shows_its_face_in_its_frame(extracted, name):
    folder = extracted.folder(name)
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


def test_colour_is_kept_blue_before_red(tmp_path):
    class RedFrame:
        width, height = WIDTH, HEIGHT

        def bgr_region(self, x1, y1, x2, y2):
            return np.full((y2 - y1, x2 - x1, 3), (10, 20, 200), np.uint8)

    crop, size = cut_face(RedFrame(), np.array([0.25, 0.5, 0.5, 1]), StaticSet(tmp_path).configure(channels=3))
    assert (crop.shape, size) == ((3, 18, 24), (WIDTH // 4, HEIGHT // 2))
    assert (crop == np.array([10, 20, 200]).reshape(3, 1, 1)).all()


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
        ([0.3, 0.4], 10, 4, [0.3, 0.3, 0.3, 0.3]),  # frames that begin late
        ([], 10, 4, []),
    ],
)
def test_frames_are_sampled(times, fps, count, expected):
    found = list(sampled(map(At, times), start_s=0.0, fps=fps, count=count))
    assert [number for number, _ in found] == list(range(1, len(expected) + 1))
    assert [frame.time_s for _, frame in found] == expected


def test_mfccs_are_those_of_the_audio_normalised(extracted):
    folder = extracted.folder("-tinyTrain1")
    found = np.load(folder.mfccs)
    _, samples = scipy.io.wavfile.read(folder.audio)
    expected = mfcc(samples / np.float32(32768), 16000, coefficients=13, window=400, stride=160)
    assert found.shape == expected.shape == (13, 1 + len(samples) // 160)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=1), 1, atol=1e-4)
    assert np.corrcoef(found[3], expected[3])[0, 1] == pytest.approx(1)


@pytest.mark.parametrize(("split", "names"), [("train", ["-tinyTrain1", "tinyTrain_2"]), ("test", ["tinyVal_001"])])
def test_windows_of_each_track(extracted, split, names):
    table = read_samples(extracted.config, extracted.data, split, "full").table.to_pylist()
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
    columns = ("video_id", "entity_id", "time_s", "label", "first")
    assert [tuple(row[column] for column in columns) for row in table] == expected
    assert all(row["smallest_side"] in (20, 24, 30) for row in table)


def test_what_is_there_is_left_alone_and_other_settings_are_noticed(copied):
    folder = copied.folder()
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir() if path.is_file()}
    assert copied.extract("videos", "mfccs") == [0, 0]
    assert {path: path.stat().st_mtime_ns for path in before} == before

    copied.configure(width=20, fps=12.5)
    assert copied.extract("annotations", "videos", "annotations") == [EXIT_USER_ERROR, 0, 0]
    assert np.load(folder.crops).shape[2:] == (18, 20)
    assert len(list(folder.path.glob("*.jpg"))) == 19  # 0.04 to 1.48 s; those of the first extraction are gone


def test_another_video_of_the_same_name_is_noticed_and_an_absent_one_is_not_asked_for(copied):
    folder, videos = copied.folder(), copied.at("vid_save_path")
    before = np.load(folder.crops)
    shutil.copy(videos / "-tinyTrain1.mp4", videos / "tinyVal_001.mp4")
    assert copied.extract("videos") == [0]
    after = np.load(folder.crops)
    assert after.shape == before.shape
    assert (after != before).any()
    with pytest.raises(UserError, match="another audio: run 'ava-extract mfccs'"):
        copied.windows()
    shutil.rmtree(videos)
    videos.mkdir()
    assert copied.extract() == [0, 0, 0]
    np.testing.assert_array_equal(np.load(folder.crops), after)


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def changed(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def interrupted(path: Path) -> None:
    """As after an interrupt, or a failure, in the middle of a step."""
    record = record_path(path.parent, "mfccs" if path.name == "mfcc.npy" else "videos")
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"begun": sorted(values["outputs"]), "outputs": {}}))


READ = ("faces.arrow", "crops.npy", "mfcc.npy", "start_ts", "audio.wav")


@pytest.mark.parametrize("damage", [Path.unlink, cut, changed, emptied, interrupted])
@pytest.mark.parametrize("name", READ)
def test_doing_what_messages_say_mends_what_training_reads(copied, name, damage):
    folder = copied.folder().path
    whole = tree(folder)
    damage(folder / name)
    messages = []
    while len(messages) < 4:
        try:
            assert len(copied.windows()) == 23
            break
        except UserError as error:
            messages.append(str(error))
        (step,) = (step for step in ("videos", "mfccs", "annotations") if f"'ava-extract {step}'" in messages[-1])
        assert copied.extract(step) == [0], messages
    assert messages[0].startswith("1 of 1 videos cannot be used")
    assert str(folder / ("audio.wav" if damage is interrupted and name != "mfcc.npy" else name)) in messages[0]
    assert tree(folder) == whole


@pytest.mark.parametrize("damage", [Path.unlink, cut, changed])
@pytest.mark.parametrize("name", ["1.jpg", "7.jpg", "37.jpg"])
def test_extraction_mends_the_frames_which_training_does_not_read(copied, name, damage):
    folder = copied.folder().path
    whole = tree(folder)
    damage(folder / name)
    assert len(copied.windows()) == 23
    assert copied.extract("videos", "mfccs") == [0, 0]
    assert tree(folder) == whole


def test_broken_and_absent_videos_do_not_stop_the_others(laid_out, capsys):
    videos = laid_out.at("vid_save_path")
    (videos / "-tinyTrain1.mp4").unlink()
    shutil.copy(videos / "tinyTrain_2.mp4", videos / "tinyVal_001.mp4")  # 40 frames as well, but others
    (videos / "tinyTrain_2.mp4").write_bytes(b"no video")
    assert laid_out.extract() == [EXIT_BROKEN_ITEMS, EXIT_BROKEN_ITEMS, EXIT_USER_ERROR]
    messages = capsys.readouterr().err
    for fact in ("-tinyTrain1 in", "tinyTrain_2.mp4 cannot be opened", "no audio", "train_annotations_full"):
        assert fact in messages


@pytest.mark.parametrize("step", ["videos", "mfccs", "annotations"])
def test_what_others_have_extracted_is_neither_used_nor_replaced(copied, step, capsys):
    """As of the published ava_asd, which writes files of the same names, or of one before there were records."""
    folder, samples = copied.folder("-tinyTrain1").path, copied.at("train_annotations_full")
    mine = {"videos": folder / "audio.wav", "mfccs": folder / "mfcc.npy", "annotations": samples}[step]
    record = samples.name if step == "annotations" else step
    record_path(mine.parent, record).unlink()
    before = tree(copied.data)
    with pytest.raises(UserError, match=f"{mine} is there, but .*move it away"):
        copied.windows("train")
    assert copied.extract(step) == [EXIT_USER_ERROR]
    assert f"{mine} is there, but" in capsys.readouterr().err
    assert tree(copied.data) == before


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000])
@pytest.mark.parametrize("item", ["videos", "mfccs"])
def test_a_record_that_is_damaged(copied, item, content, capsys):
    path = record_path(copied.folder().path, item)
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path}.*delete"):
        copied.windows()
    assert copied.extract(item) == [EXIT_USER_ERROR]
    assert str(path) in capsys.readouterr().err


def test_mfccs_of_other_audio_of_the_same_length_are_made_anew(copied):
    folder = copied.folder()
    before, (rate, samples) = np.load(folder.mfccs), scipy.io.wavfile.read(folder.audio)
    with copied.rewriting(folder.audio):
        scipy.io.wavfile.write(folder.audio, rate, samples[::-1])
    assert copied.extract("mfccs") == [0]
    assert (np.load(folder.mfccs) != before).any()


def test_a_video_without_audio_does_not_stop_the_others(copied, capsys):
    folder = copied.folder("-tinyTrain1")  # which is worked on first
    for name in CLIP:
        copied.folder(name).mfccs.unlink()
    folder.audio.unlink()
    assert copied.extract("mfccs", "annotations") == [EXIT_BROKEN_ITEMS, EXIT_BROKEN_ITEMS]
    assert [copied.folder(name).mfccs.is_file() for name in CLIP] == [False, True, True]
    said = capsys.readouterr()
    assert "2 of 3 videos done" in said.out
    assert said.err.count(str(folder.audio)) == 2
    assert copied.extract() == [0, 0, 0]


def test_a_stride_of_less_than_a_sample(copied, capsys):
    copied.configure(stride=0.001)
    scipy.io.wavfile.write(copied.folder().audio, 500, np.zeros(1000, np.int16))
    assert copied.extract("mfccs") == [EXIT_BROKEN_ITEMS]
    message = capsys.readouterr().err
    for fact in ("500 samples a second", "mfcc_window_size of 0.025 s", "stride of 0.001 s"):
        assert fact in message


def test_a_video_that_ends_before_its_faces(laid_out, capsys):
    csv = laid_out.at("test_ann_dir") / "tinyVal_001-activespeaker.csv"
    video_id, _, *row = csv.read_text().splitlines()[-1].split(",")
    csv.write_text(csv.read_text() + ",".join([video_id, "7.00", *row]) + "\n")
    assert laid_out.extract("videos") == [EXIT_BROKEN_ITEMS]
    message = capsys.readouterr().err
    for fact in ("tinyVal_001.mp4: the frames end before 7.00 s", "tinyVal_001_0000_0060:3"):
        assert fact in message
    assert not laid_out.folder().faces.is_file()


def test_frames_that_begin_after_a_face(laid_out, monkeypatch, capsys):
    original = extract_videos.read_frames

    def late(video, start_s, end_s):
        return (frame for frame in original(video, start_s, end_s) if frame.time_s > 0.5)

    monkeypatch.setattr(extract_videos, "read_frames", late)
    assert laid_out.extract("videos") == [EXIT_BROKEN_ITEMS]
    assert "tinyVal_001.mp4: the frames begin at 0.52 s" in capsys.readouterr().err


def test_user_mistakes(laid_out, capsys):
    def refused(*facts: object, step: str = "videos") -> None:
        assert laid_out.extract(step) == [EXIT_USER_ERROR]
        message = capsys.readouterr().err
        assert message.count("error: ") == 1
        assert all(str(fact) in message for fact in facts)

    refused("train_annotations_full", "run 'ava-extract videos'", step="annotations")
    test_ann = laid_out.at("test_ann_dir")
    shutil.copy(laid_out.at("train_ann_dir") / "tinyTrain_2-activespeaker.csv", test_ann)
    refused("1 video(s)", "train_ann_dir", "test_ann_dir", "tinyTrain_2")
    shutil.rmtree(test_ann)
    refused(test_ann, step="mfccs")
    shutil.rmtree(laid_out.at("vid_save_path"))
    refused(laid_out.at("vid_save_path"), "vid_save_path", "run 'ava-download videos'")
    shutil.rmtree(laid_out.data)
    refused(laid_out.data)
