"""ava-extract on the tiny set: frames, audio, faces, MFCCs, windows; what is whole is kept, the rest made anew."""

import json
import shutil
from collections.abc import Callable
from itertools import product

import cv2
import numpy as np
import pytest
import scipy.io.wavfile
from ava_asd_set import StaticSet, change_faces
from tiny import BOXES, CLIPS, FPS, HEIGHT, WIDTH, brightness, tree

from ava_asd import extract_videos
from ava_asd.extract_videos import cut_face, sampled
from ava_asd.layout import VideoFolder
from ava_asd.mfcc import mfcc
from ava_asd.samples import read_samples
from ava_asd.stores import read_faces
from core.media.audio import decode_audio, extract_audio
from core.media.container import MediaFile
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_USER_ERROR, UserError

FIRST = {"-tinyTrain1": 4, "tinyTrain_2": 0, "tinyVal_001": 1}  # video frame of 1.jpg: one (eps) before the first face
CLIP = {clip.video_id: clip for clip in CLIPS}


@pytest.mark.parametrize("name", CLIP)
def test_frames_are_numbered_from_the_first_annotated_time_less_eps(extracted, name):
    folder = extracted.folder(name)
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
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert copied.extract("videos", "mfccs") == [0, 0]
    assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before

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
    assert folder.made_with("mfccs") is None  # they are of other audio, whatever its length
    shutil.rmtree(videos)
    videos.mkdir()
    assert copied.extract() == [0, 0, 0]
    np.testing.assert_array_equal(np.load(folder.crops), after)


def cut(folder: VideoFolder, name: str) -> None:
    whole = (folder.path / name).read_bytes()
    (folder.path / name).write_bytes(whole[: len(whole) * 2 // 3])


def absent(folder: VideoFolder, name: str) -> None:
    (folder.path / name).unlink()


def holding(content: bytes) -> Callable[[VideoFolder, str], object]:
    return lambda folder, name: (folder.path / name).write_bytes(content)


def array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[VideoFolder, str], object]:
    return lambda folder, name: np.save(folder.path / name, change(np.load(folder.path / name)))


def without_track(folder: VideoFolder, name: str) -> None:
    change_faces(folder, lambda faces: faces.drop(["track"]))


def interrupted(folder: VideoFolder, name: str) -> None:
    folder.begin(name.removesuffix(".json"))
    folder.crops.write_bytes(b"half")


def made_with(**changes: object) -> Callable[[VideoFolder, str], object]:
    """MFCCs of other numbers, and a record of how they were made with keys changed, or without those that are None."""

    def damage(folder: VideoFolder, name: str) -> None:
        np.save(folder.mfccs, np.load(folder.mfccs) + 1)
        values = {**json.loads((folder.path / name).read_text()), **changes}
        (folder.path / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))

    return damage


NOT_FINISHED = "is not finished: run 'ava-extract "
DAMAGED = (absent, holding(b""), holding(b"damaged"))
NO_RECORD = (absent, *map(holding, (b"", b"[]", b"{}", b'"text"', b"[" * 100_000)))
DAMAGES = [  # file, what happens to it, what the message on it says
    *product(["faces.arrow"], DAMAGED, ["/faces.arrow"]),
    *product(["crops.npy"], DAMAGED, ["/crops.npy"]),
    *product(["mfcc.npy"], DAMAGED, ["/mfcc.npy"]),
    *product(["start_ts"], DAMAGED, ["/start_ts"]),
    *product(["videos.json"], NO_RECORD[1:], [f"{NOT_FINISHED}videos'"]),
    ("videos.json", made_with(frames="many"), f"{NOT_FINISHED}videos'"),
    *product(["mfccs.json"], NO_RECORD, [f"{NOT_FINISHED}mfccs'"]),
    ("faces.arrow", cut, "/faces.arrow is damaged"),
    ("faces.arrow", without_track, "no column track"),
    ("crops.npy", cut, "/crops.npy cannot be read"),
    ("crops.npy", array(lambda crops: crops[:-1]), "76 x 1 x 18 x 24, expected uint8, 77 x 1 x 18 x 24"),
    ("mfcc.npy", cut, "/mfcc.npy cannot be read"),
    ("mfcc.npy", array(lambda mfccs: mfccs[0]), "expected float32, 13 x any"),
    ("start_ts", holding(b"nan"), "/start_ts holds 'nan', expected seconds"),
    ("videos.json", interrupted, f"{NOT_FINISHED}videos'"),
    *(("mfccs.json", made_with(hop_s=hop_s), f"{NOT_FINISHED}mfccs'") for hop_s in (None, "0.01", 0, float("inf"))),
    ("mfccs.json", made_with(start_ts=7), "/mfcc.npy is of another extraction"),
    ("mfccs.json", made_with(version=None), "version None instead of 2"),  # as before there were versions
    ("mfccs.json", made_with(version=1), "version 1 instead of 2"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_doing_what_messages_say_mends_what_training_reads(copied, name, damage, message):
    folder = copied.folder()
    whole = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    damage(folder, name)
    messages = []
    while len(messages) < 5:
        try:
            assert len(copied.windows()) == 23
            break
        except UserError as error:
            messages.append(str(error))
        (step,) = (step for step in ("videos", "mfccs", "annotations") if f"'ava-extract {step}'" in messages[-1])
        assert copied.extract(step) == [0], messages
    assert messages[0].startswith("1 of 1 videos cannot be used")
    assert str(folder.path) in messages[0]
    assert message in messages[0]
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == whole


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *product(["1.jpg", "7.jpg", "37.jpg"], [absent, cut]),
        *product(["audio.wav"], [*DAMAGED, cut]),
        ("mfcc.npy", array(lambda mfccs: mfccs[:, :-1])),  # of shorter audio
    ],
)
def test_extraction_mends_what_training_does_not_read(copied, capsys, name, damage):
    folder = copied.folder()
    whole = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    damage(folder, name)
    assert len(copied.windows()) == 23
    if name == "audio.wav":
        assert copied.extract("mfccs") == [EXIT_BROKEN_ITEMS]
        assert str(folder.audio) in capsys.readouterr().err
    assert copied.extract("videos", "mfccs") == [0, 0]
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == whole


def test_broken_and_absent_videos_do_not_stop_the_others(laid_out, capsys):
    videos = laid_out.at("vid_save_path")
    (videos / "-tinyTrain1.mp4").unlink()
    shutil.copy(videos / "tinyTrain_2.mp4", videos / "tinyVal_001.mp4")  # 40 frames as well, but others
    (videos / "tinyTrain_2.mp4").write_bytes(b"no video")
    assert laid_out.extract() == [EXIT_BROKEN_ITEMS, EXIT_BROKEN_ITEMS, EXIT_USER_ERROR]
    messages = capsys.readouterr().err
    for fact in ("-tinyTrain1 in", "tinyTrain_2.mp4 cannot be opened", "no audio", "train_annotations_full"):
        assert fact in messages


def test_what_others_have_extracted_is_not_replaced(copied, capsys):
    """The published ava_asd writes frames, audio and pickled samples of the same names."""
    folder, samples = copied.folder(), copied.at("train_annotations_full")
    folder.record("videos").unlink()
    samples.write_bytes(b"\x80\x04pickle")
    before = tree(copied.data)
    copied.configure(width=20)
    assert copied.extract("videos", "annotations") == [EXIT_BROKEN_ITEMS, EXIT_USER_ERROR]
    message = capsys.readouterr().err
    assert f"{folder.path} holds frames or audio" in message
    assert f"{samples} is no table of samples" in message
    after = tree(copied.data)
    theirs = ("extracted/10fps/tinyVal_001/", str(samples.relative_to(copied.data)))
    assert all(after[name] == before[name] for name in before if name.startswith(theirs))


def test_mfccs_of_other_audio_of_the_same_length_are_made_anew(copied):
    folder = copied.folder()
    before, (rate, samples) = np.load(folder.mfccs), scipy.io.wavfile.read(folder.audio)
    scipy.io.wavfile.write(folder.audio, rate, samples[::-1])
    assert copied.extract("mfccs") == [0]
    assert (np.load(folder.mfccs) != before).any()


@pytest.mark.parametrize("text", [None, "soon", "nan"])
def test_a_bad_start_ts_does_not_stop_the_others(copied, capsys, text):
    path = copied.folder("-tinyTrain1").path / "start_ts"  # which is worked on first
    for name in CLIP:
        copied.folder(name).mfccs.unlink()
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert copied.extract("mfccs") == [EXIT_BROKEN_ITEMS]
    assert [copied.folder(name).mfccs.is_file() for name in CLIP] == [False, True, True]
    said = capsys.readouterr()
    assert "2 of 3 videos done" in said.out
    assert str(path) in said.err
    assert copied.extract("annotations") == [EXIT_BROKEN_ITEMS]
    assert (f"no {path}" if text is None else f"{path} holds {text!r}") in capsys.readouterr().err
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
    assert laid_out.folder().made_with("videos") is None


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
