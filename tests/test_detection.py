"""Detection in whole videos, with a detector that knows where faces are and an encoder with random weights."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from tiny import BOXES, CLIPS, FPS, SAMPLE_RATE, picture, sound

from core.detection import ActiveSpeakerDetector
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_writer import write_video
from core.models import ASC_Net, light_asd, lr_asd, resnet18_two_streams
from core.outputs.overlay import write_overlay
from core.runtime.errors import MediaError, UserError

CLIP = CLIPS[0]


class Squares:
    """Finds the squares of `tiny.picture`, the first `faces` of them."""

    name = "squares"

    def __init__(self, faces: int = 2):
        self.faces = faces

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        scale = pixels.shape[1] / 64
        return np.array([[*(side * scale for side in box), 0.9] for box in BOXES[: self.faces]], np.float32).reshape(
            -1, 5
        )


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """State dicts of all encoders, with random weights: `<name>.pth`."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, make in {"light_asd": light_asd, "lr_asd": lr_asd, "resnet18_two_streams": resnet18_two_streams}.items():
        model = make() if name.endswith("_asd") else make(False, 3)
        torch.save(model.state_dict(), folder / f"{name}.pth")
    for size in (128, 1024):
        torch.save(ASC_Net(3, 2, size).state_dict(), folder / f"context{size}.pth")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "-two faces.mp4"
    write_video(path, (picture(n, 2) for n in range(CLIP.frames)), FPS, sound(CLIP), SAMPLE_RATE, crf=8)
    return path


def detector(weights: Path, name: str = "light_asd", faces: int = 2, **options) -> ActiveSpeakerDetector:
    return ActiveSpeakerDetector(name, weights / f"{name}.pth", detector=Squares(faces), min_face_px=10, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light_asd", {}),
        ("lr_asd", {"crop": "lower_face"}),
        ("lr_asd", {"ensemble": True}),
        ("lr_asd", {"context": 128}),
        ("resnet18_two_streams", {}),
        ("resnet18_two_streams", {"context": 1024}),
    ],
)
def test_every_road_scores_every_frame(weights, video, name, options):
    if "context" in options:
        options = {"context": weights / f"context{options['context']}.pth", "context_shape": (3, 4, 2)}
    found = detector(weights, name, **options).detect(video)
    assert found.complete
    assert found.notes == []
    assert [track.id for track in found.tracks] == [1, 2]
    assert len(found.frame_times_s) == CLIP.frames
    assert [(shot.first_frame, shot.last_frame) for shot in found.shots] == [(0, CLIP.frames - 1)]
    assert found.shots[0].end_s == pytest.approx(2.0, abs=0.01)
    for track, box in zip(found.tracks, BOXES, strict=False):
        assert track.frames.tolist() == list(range(CLIP.frames))
        assert track.boxes == pytest.approx(np.tile(box, (CLIP.frames, 1)), abs=0.01)
        assert np.isfinite(track.scores).all()
        assert track.scores.std() > 0
        np.testing.assert_array_equal(track.speaking, track.probabilities >= 0.5)
    assert not np.array_equal(found.tracks[0].scores, found.tracks[1].scores)
    assert found.settings["encoder"] == name
    assert len(found.settings["weights_sha256"]) == 64


def test_the_same_video_gives_the_same_scores(weights, video):
    first, second = (detector(weights).detect(video) for _ in range(2))
    for one, other in zip(first.tracks, second.tracks, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("seldom", [5, 15])
def test_looking_less_often_changes_little(weights, video, seldom):
    every, seldom = (detector(weights, detect_every=n).detect(video) for n in (1, seldom))
    for one, other in zip(every.tracks, seldom.tracks, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


def test_progress_is_told_in_seconds(weights, video):
    told = []
    detector(weights).detect(video, told.append)
    assert len(told) == CLIP.frames
    assert told[-1] == pytest.approx(49 / FPS, abs=0.01)


def test_a_video_without_sound_has_faces_without_scores(weights, tmp_path):
    write_video(tmp_path / "mute.mp4", (picture(n, 2) for n in range(30)), FPS)
    found = detector(weights).detect(tmp_path / "mute.mp4")
    assert len(found.tracks) == 2
    assert found.audio_s is None
    assert np.isnan(found.tracks[0].scores).all()
    assert not found.tracks[0].speaking.any()
    assert found.complete
    [note] = found.notes
    assert "no audio stream" in note


def test_a_video_without_faces(weights, video):
    found = detector(weights, faces=0).detect(video)
    assert found.tracks == []
    assert len(found.shots) == 1
    assert found.notes == ["No face was found."]


def test_sound_that_ends_early_is_told(weights, tmp_path):
    frames = (picture(n, 1) for n in range(50))
    write_video(tmp_path / "a.mp4", frames, FPS, sound(CLIP)[: SAMPLE_RATE // 2], SAMPLE_RATE)
    found = detector(weights, faces=1).detect(tmp_path / "a.mp4")
    assert found.audio_s[1] == pytest.approx(0.5, abs=0.1)
    assert any("outside it counts as silence" in note for note in found.notes)
    assert np.isfinite(found.tracks[0].scores).all()


def encode_at(path: Path, times_s: list[float], audio_s: float = 0.0) -> Path:
    """The tiny picture at given times, with its sound from a time on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 6000)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(number % 50, 1), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 6000), Fraction(1, 6000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        samples = av.AudioFrame.from_ndarray(sound(CLIP)[None], format="s16", layout="mono")
        samples.sample_rate, samples.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        samples.pts = round(audio_s * SAMPLE_RATE)
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    return path


def test_sound_that_starts_late_is_told(weights, tmp_path):
    times = [number / FPS for number in range(75)]
    found = detector(weights, faces=1).detect(encode_at(tmp_path / "late.mkv", times, audio_s=1.0))
    assert found.audio_s[0] == pytest.approx(1.0, abs=0.05)
    [note] = found.notes
    assert "outside it counts as silence" in note
    assert len(found.tracks[0].scores) == 75
    assert np.isfinite(found.tracks[0].scores).all()


@pytest.mark.parametrize("fps", [1, 2, 3, 10, 24, 30000 / 1001, 60])
def test_any_frame_rate_scores_its_own_frames(weights, tmp_path, fps):
    times = [number / fps for number in range(max(4, int(1.8 * fps)))]
    found = detector(weights, faces=1).detect(encode_at(tmp_path / "a.mp4", times))
    [track] = found.tracks
    assert len(track.frames) == len(times)
    np.testing.assert_allclose(track.times_s, times, atol=1e-3)
    assert np.isfinite(track.scores).all()


def test_a_varying_frame_rate(weights, tmp_path):
    times = np.cumsum([0.0, *np.tile([0.02, 0.05, 0.2, 0.033], 6)]).tolist()
    found = detector(weights, faces=1).detect(encode_at(tmp_path / "a.mp4", times))
    [track] = found.tracks
    np.testing.assert_allclose(track.times_s, times, atol=1e-3)
    np.testing.assert_allclose(found.frame_times_s, times, atol=1e-3)


def test_a_rate_that_falls_in_the_middle(weights, tmp_path):
    times = [number / 60 for number in range(60)] + [1.0 + number / 4 for number in range(8)]
    found = detector(weights, faces=1).detect(encode_at(tmp_path / "a.mp4", times))
    [track] = found.tracks
    assert len(track.frames) == len(times)


def joined(tmp_path: Path, sizes: list[tuple[int, int]], starts_s: list[float]) -> Path:
    """MPEG transport streams of one second each, one behind the other in one file."""
    path = tmp_path / "joined.ts"
    with path.open("wb") as out:
        for number, ((width, height), start_s) in enumerate(zip(sizes, starts_s, strict=True)):
            part = tmp_path / f"{number}.ts"
            with av.open(str(part), "w", options={"mpegts_copyts": "1"}) as container:
                stream = container.add_stream("libx264", rate=25, options={"crf": "8", "bf": "0"})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for frame_number in range(25):
                    pixels = cv2.resize(picture(frame_number, 1), (width, height))
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts, frame.time_base = round((start_s + frame_number / 25) * 90_000), Fraction(1, 90_000)
                    stream.codec_context.time_base = Fraction(1, 90_000)
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            out.write(part.read_bytes())
    return path


@pytest.mark.parametrize("second", [(32, 24), (128, 128)])
def test_a_picture_whose_size_changes_is_scaled_to_the_first(weights, tmp_path, second):
    found = detector(weights, faces=1).detect(joined(tmp_path, [(64, 48), second], [10.0, 11.0]))
    assert (found.info.width, found.info.height) == (64, 48)
    assert len(found.frame_times_s) == 50
    for track in found.tracks:
        assert track.boxes == pytest.approx(np.tile(BOXES[0], (len(track.frames), 1)), abs=0.01)
    assert sum(len(track.frames) for track in found.tracks) == 50


def test_time_that_goes_back_ends_the_video(weights, tmp_path):
    found = detector(weights, faces=1).detect(joined(tmp_path, [(64, 48)] * 2, [10.0, 5.0]))
    assert not found.complete
    assert len(found.frame_times_s) == 25
    assert "time goes back" in found.notes[0]


def test_two_shots(weights, tmp_path):
    def frames():
        for number in range(40):
            pixels = picture(number % 30, 1)
            yield pixels if number < 20 else 255 - pixels

    write_video(tmp_path / "a.mp4", frames(), FPS, sound(CLIP), SAMPLE_RATE, crf=8)
    found = detector(weights, faces=1).detect(tmp_path / "a.mp4")
    assert [(shot.first_frame, shot.last_frame) for shot in found.shots] == [(0, 19), (20, 39)]
    assert [(track.shot, track.frames[0], track.frames[-1]) for track in found.tracks] == [(0, 0, 19), (1, 20, 39)]


def test_short_and_small_tracks_are_left_out(weights, video):
    assert detector(weights, min_track_s=3.0).detect(video).tracks == []
    small = ActiveSpeakerDetector("light_asd", weights / "light_asd.pth", detector=Squares(), min_face_px=40)
    assert small.detect(video).tracks == []


def test_a_file_cut_off_gives_what_can_be_decoded(weights, shared):
    found = detector(weights, faces=0).detect(shared / "mini-ava" / "unusual" / "truncated-middle.mp4")
    assert not found.complete
    assert len(found.frame_times_s) > 20
    assert "Video: 1 packet(s) cannot be decoded, at 3.47 s" in found.notes[0]
    assert found.notes[1] == "The file is cut off: it should last 6.63 s, and ends at 3.47 s."


def test_a_file_cut_off_between_packets_is_told(weights, video, tmp_path):
    with av.open(str(video)) as old, av.open(str(tmp_path / "a.mkv"), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    content = (tmp_path / "a.mkv").read_bytes()
    assert detector(weights, faces=0).detect(tmp_path / "a.mkv").complete
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 3])
    found = detector(weights, faces=0).detect(tmp_path / "a.mkv")
    assert not found.complete
    assert any(note.startswith("The file is cut off: it should last 2.0") for note in found.notes)


def test_damage_in_the_middle_costs_what_is_damaged(weights, video, tmp_path):
    """Picture and sound go on behind a packet that cannot be decoded."""
    with av.open(str(video)) as old, av.open(str(tmp_path / "a.mkv"), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for number, packet in enumerate(old.demux()):
            if packet.size:
                copy = av.Packet(b"nothing of use" if 20 <= number < 26 else bytes(packet))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, streams[packet.stream.index]
                new.mux(copy)
    found = detector(weights).detect(tmp_path / "a.mkv")
    assert not found.complete
    assert any(note.startswith("Video:") for note in found.notes)
    assert any(note.startswith("Audio:") for note in found.notes)
    whole = detector(weights).detect(video)
    assert len(whole.frame_times_s) - 6 < len(found.frame_times_s) < len(whole.frame_times_s)
    assert found.frame_times_s[-1] == pytest.approx(whole.frame_times_s[-1], abs=0.07)  # mkv keeps AAC's delay
    assert found.audio_s == pytest.approx(whole.audio_s, abs=0.15)
    write_overlay(tmp_path / "overlay.mp4", found)
    assert sum(1 for _ in read_frames(MediaFile(tmp_path / "overlay.mp4"))) == len(found.frame_times_s)


@pytest.mark.parametrize("name", ["zero-bytes.mp4", "truncated-index-lost.mp4"])
def test_a_file_that_cannot_be_opened(weights, shared, name):
    with pytest.raises(MediaError, match=name):
        detector(weights).detect(shared / "mini-ava" / "unusual" / name)


def test_wrong_arguments_are_refused(weights):
    def refused(match: str, name: str = "light_asd", **options) -> None:
        with pytest.raises(UserError, match=match):
            detector(weights, name, **options)

    refused("detect_every 0", detect_every=0)
    refused("min_track_s nan", min_track_s=float("nan"))
    refused("crop", name="resnet18_two_streams", crop="box")
    refused("context or ensemble", ensemble=True, context=weights / "context128.pth")
    refused("contexts of", context=weights / "context128.pth", context_shape=(5, 4, 2))
    with pytest.raises(UserError, match="unknown encoder 'talknet': choose one of"):
        ActiveSpeakerDetector("talknet", weights / "light_asd.pth", detector=Squares())
    with pytest.raises(UserError, match="another network"):
        ActiveSpeakerDetector("lr_asd", weights / "light_asd.pth", detector=Squares())
    with pytest.raises(UserError, match="no published weights"):
        ActiveSpeakerDetector("resnet18_two_streams", detector=Squares())
