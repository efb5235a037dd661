"""data/import_dataset.py on tiny files in the layouts that the owners' documents and scripts describe."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import HEIGHT, WIDTH, exit_status, refusal, tiny_frame, tree, write_crop
from videos import encode

import evaluate
from core.formats import ava
from core.formats.crop_store import Crops
from core.formats.wav import entity_audio, write_wav
from data import import_dataset

HEADER = ",".join(ava.AUGMENTED_COLUMNS)
VIDEOS = {"train": ["trainA_0-30"], "val": ["valA_0-30", "valB_30-60", "valC_60-90"]}
TIMES = [f"{number / 25:.2f}" for number in range(1, 7)]


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_json(path: Path, value: object) -> Path:
    return write(path, json.dumps(value))


def lines_of(folder: Path) -> dict[str, list[str]]:
    """Relative path -> lines of every csv below a folder."""
    return {name: content.decode().splitlines() for name, content in tree(folder).items() if name.endswith(".csv")}


def talknet_layout(source: Path) -> None:
    """As download_dataset.py of UniTalk and create_dataset.py of WASD leave it: csvs, crops, wavs."""
    for split, videos in VIDEOS.items():
        rows = []
        for video in videos:
            entity = f"{video}:1"
            for number, time in enumerate(TIMES):
                label, label_id = (("NOT_SPEAKING", 0), ("SPEAKING_AUDIBLE", 1))[number % 2]
                # pandas writes 0.2 for 0.20
                rows.append(f"{video},{float(time)},0.1,0.2,0.5,0.6,{label},{entity},{label_id},{entity}:{number}")
                write_crop(source / "clips_videos" / split / video, entity, time, np.full((8, 8, 3), 9, np.uint8))
            wav = source / "clips_audios" / split / video / f"{entity}.wav"
            wav.parent.mkdir(parents=True)
            write_wav(wav, np.zeros(int(0.24 * 16000) - int(0.04 * 16000), np.int16))
        write(source / "csv" / f"{split}_orig.csv", HEADER, *rows)


def wasd(source: Path) -> None:
    talknet_layout(source)
    numbers = zip([video for videos in VIDEOS.values() for video in videos], (1, 4, 0, 4), strict=True)
    rows = [f"{video},{number},30" for video, number in numbers]
    write(source / "eval" / "wasd_metadata.csv", "Video,Category,FPS", *rows, "elsewhere_0-30,2,30")
    for videos in VIDEOS.values():
        for video in videos:
            write(source / "orig_videos" / "trainval" / f"{video}.mp4", "a video")


def unitalk(source: Path) -> None:
    talknet_layout(source)
    write(source / "sub_categories" / "test_noise.csv", "valA_0-30", "valC_60-90")
    write(source / "sub_categories" / "test_language.csv", "valB_30-60")


def ego4d(source: Path) -> None:
    """annotations/av_{train,val}.json by the schema of ego4d-data.org; one of the clips was not downloaded."""

    def boxes(frames: list[int], **box: float) -> list[dict]:
        sides = {"x": 16.0, "y": 12.0, "width": 32.0, "height": 24.0} | box
        return [sides | {"frame": frame, "video_frame": 900 + frame, "clip_frame": None} for frame in frames]

    def path(track_id: str, track: list[dict]) -> dict:
        return {"track_id": track_id, "track": track, "suspect": False, "unmapped_frames_count": 0}

    def clip(uid: str) -> dict:
        segment = {"start_time": 0.1, "end_time": 0.2, "start_frame": 3, "end_frame": 4, "person": "1"}
        paths = [path("track_7", boxes([4, 2, 3, 5]) + boxes([6], width=0.0)), path("visual_anchor_1", boxes([3]))]
        wearer = {"person_id": "0", "camera_wearer": True, "voice_segments": [segment], "tracking_paths": []}
        person = {"person_id": "1", "camera_wearer": False, "voice_segments": [segment], "tracking_paths": paths}
        return {"clip_uid": uid, "valid": True, "camera_wearer": wearer, "persons": [wearer, person]}

    for split, uids in {"train": ["uid-train"], "val": ["uid-val", "uid-absent"]}.items():
        clips = [clip(uid) for uid in uids]
        video = {"video_uid": f"video-{split}", "split": split, "clips": clips}
        write_json(source / "annotations" / f"av_{split}.json", {"version": "1", "videos": [video]})
    (source / "clips").mkdir()
    for uid in ("uid-train", "uid-val"):
        encode(source / "clips" / f"{uid}.mp4", map(tiny_frame, range(9)), (number / 30 for number in range(9)))


def asw(source: Path) -> None:
    for name, video in (("devset", "-yt0train"), ("valset", "yt1val"), ("testset", "yt2test")):
        box = [0.391432, -0.01, 0.463897, 0.162444]
        faces = [
            {"time": time, "bbox": box, "label": label, "eval": used}
            for time, label, used in ((28.2, 0, 0), (28.4, 0, 1), (28.6, 1, 1))
        ]
        write_json(source / "json" / f"{video}.json", {"track_000000": faces, "track_000001": faces[:1]})
        write(source / "split" / f"{name}.list", f"{video}.json")
        write(source / "original" / f"{video}.mkv", "a video")


def ava_avd(source: Path) -> None:
    for split, video in (("train", "-avd0train"), ("val", "avd1val"), ("test", "avd2test")):
        rows = (f"{video},900.{frame},0.1,0.2,0.3,0.4,NOT_SPEAKING,{video}:0,c_01spk2" for frame in ("00", "04"))
        write(source / "dataset" / "tracks" / f"{video}-activespeaker.csv", *rows)
        write(source / "dataset" / "split" / f"{split}.list", *(f"{video}_c_0{number}" for number in (1, 2, 3)))
        write(source / "dataset" / "videos" / f"{video}.mkv", "a video")


MAKE = {"wasd": wasd, "unitalk": unitalk, "ego4d": ego4d, "asw": asw, "ava-avd": ava_avd}


@pytest.fixture(params=MAKE)
def imported(request, tmp_path) -> tuple[str, Path, Path]:
    """Name, source and output of every data set; of Ego4D's clips one is absent."""
    source, out = tmp_path / "source", tmp_path / "out"
    MAKE[request.param](source)
    assert exit_status(import_dataset.main, request.param, source, out) == (request.param == "ego4d")
    return request.param, source, out


EXPECTED = {
    "wasd": {"videos": 4, "folders": 4, "splits": {"train": 6, "val": 18}},
    "unitalk": {"videos": 0, "folders": 4, "splits": {"train": 6, "val": 18}},
    "ego4d": {"videos": 2, "folders": 0, "splits": {"train": 4, "val": 4}},
    "asw": {"videos": 3, "folders": 0, "splits": {"train": 10, "val": 10, "test": 10}},
    "ava-avd": {"videos": 3, "folders": 0, "splits": {"train": 2, "val": 2, "test": 2}},
}


def test_every_data_set_becomes_ava_layout(imported):
    name, source, out = imported
    rows = {folder.name: len(ava.read_split(folder)) for folder in (out / "annotations").iterdir()}
    assert rows == EXPECTED[name]["splits"]
    links = [path for path in out.rglob("*") if path.is_symlink()]
    assert len([link for link in links if link.parent.parent.name == "videos"]) == EXPECTED[name]["videos"]
    assert len([link for link in links if link.parent.name in ("crops", "audio")]) == EXPECTED[name]["folders"]
    assert all(link.exists() and link.resolve().is_relative_to(source.resolve()) for link in links)


def test_a_second_import_writes_nothing_and_a_changed_source_is_imported_anew(imported):
    name, source, out = imported
    csvs = list((out / "annotations").rglob("*.csv"))
    before = {path: path.stat().st_mtime_ns for path in csvs}
    exit_status(import_dataset.main, name, source, out)
    assert {path: path.stat().st_mtime_ns for path in csvs} == before
    for path in source.rglob("*.csv"):
        path.write_text(path.read_text().replace(",0.2,", ",0.25,"))
    for path in source.rglob("*.json"):
        path.write_text(path.read_text().replace("0.391432", "0.37").replace("16.0", "17.0"))
    old = lines_of(out / "annotations")
    exit_status(import_dataset.main, name, source, out)
    assert all(new != old[path] for path, new in lines_of(out / "annotations").items())


def test_nothing_foreign_is_overwritten(imported, tmp_path, capsys):
    name, source, out = imported
    csv = next((out / "annotations").rglob("*.csv"))
    foreign = tmp_path / "foreign" / csv.relative_to(out)
    write(foreign, "somebody's own")
    assert str(foreign) in refusal(capsys, import_dataset.main, name, source, tmp_path / "foreign")
    assert foreign.read_text() == "somebody's own\n"
    assert [path for path in (tmp_path / "foreign").rglob("*") if path.is_symlink()] == []

    other = next(other for other in MAKE if other != name)
    MAKE[other](tmp_path / "other")
    before = tree(out)
    assert name in refusal(capsys, import_dataset.main, other, tmp_path / "other", out)
    assert tree(out) == before


@pytest.mark.parametrize("in_place", ["a folder", "another link"])
def test_what_stands_in_the_place_of_a_link_stays(in_place, tmp_path, capsys):
    unitalk(tmp_path / "source")
    place = tmp_path / "out" / "crops" / "val"
    place.parent.mkdir(parents=True)
    place.mkdir() if in_place == "a folder" else place.symlink_to(tmp_path)
    assert str(place) in refusal(capsys, import_dataset.main, "unitalk", tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out" / "annotations").exists()
    assert place.is_symlink() == (in_place == "another link")


@pytest.mark.parametrize("name", ["wasd", "unitalk"])
def test_crops_and_audio_are_read_through_the_links(name, tmp_path):
    MAKE[name](tmp_path / "source")
    if name == "wasd":  # as its convert_dataset.py does
        (tmp_path / "source" / "clips_audios").rename(tmp_path / "source" / "clip_audio")
    assert exit_status(import_dataset.main, name, tmp_path / "source", tmp_path / "out") == 0
    rows = ava.augment(ava.read_split(tmp_path / "out" / "annotations" / "val"))
    assert Crops(tmp_path / "out" / "crops" / "val", rows).decode(17).shape == (8, 8, 3)
    audio = entity_audio(rows, np.ones(len(rows), bool), tmp_path / "out" / "audio" / "val")
    assert [len(part.read()) for part in audio] == [3200] * 3


@pytest.mark.parametrize(
    ("name", "categories"),
    [
        (
            "wasd",
            {
                "valB_30-60": "Optimal Conditions",
                "trainA_0-30": "Speech Impairment",
                "valA_0-30": "Surveillance Settings",
                "valC_60-90": "Surveillance Settings",
            },
        ),
        ("unitalk", {"valB_30-60": "language", "valA_0-30": "noise", "valC_60-90": "noise"}),
    ],
)
def test_results_by_the_owners_categories_are_those_of_their_videos_alone(name, categories, tmp_path, capsys):
    MAKE[name](tmp_path / "source")
    out = tmp_path / "out"
    exit_status(import_dataset.main, name, tmp_path / "source", out)
    listed = [line.split(",") for line in (out / "categories.csv").read_text().splitlines()]
    assert listed == [["video_id", "category"], *map(list, categories.items())]

    rows = ava.read_split(out / "annotations" / "val")
    scores = np.random.default_rng(3).random(len(rows))
    ava.write_predictions(tmp_path / "all.csv", rows, scores)
    given = ["--groundtruth", out / "annotations" / "val", "--predictions", tmp_path / "all.csv"]
    for detected in ([], ["--detected"]):
        result = tmp_path / "result.json"
        words = [*given, *detected, "--categories", out / "categories.csv", "--json", result]
        assert exit_status(evaluate.main, *words) == 0
        by_category = json.loads(result.read_text())["by_category"]
        assert list(by_category) == list(dict.fromkeys(categories.values()))
        assert "  language " in capsys.readouterr().out or name == "wasd"
        for category, numbers in by_category.items():
            own = rows["video_id"].map(categories) == category
            if own.any():
                ava.write_groundtruth(tmp_path / "gt.csv", rows[own])
                ava.write_predictions(tmp_path / "own.csv", rows[own].reset_index(drop=True), scores[own])
                words = ["--groundtruth", tmp_path / "gt.csv", "--predictions", tmp_path / "own.csv", *detected]
                assert exit_status(evaluate.main, *words, "--json", tmp_path / "own.json") == 0
                alone = json.loads((tmp_path / "own.json").read_text())
                assert numbers["average_precision"] == alone["average_precision"]
            else:
                assert numbers["average_precision"] is None


def test_ego4d_faces_speak_in_their_persons_voice_segments(tmp_path, capsys):
    ego4d(tmp_path / "source")
    assert exit_status(import_dataset.main, "ego4d", tmp_path / "source", tmp_path / "out") == 1
    assert "uid-absent" in capsys.readouterr().err
    box = ",".join(f"{side:.6f}" for side in (16 / WIDTH, 12 / HEIGHT, 48 / WIDTH, 36 / HEIGHT))
    assert lines_of(tmp_path / "out" / "annotations" / "val") == {
        "uid-val-activespeaker.csv": [
            f"uid-val,{time},{box},{label},uid-val:track_7"
            for time, label in (
                ("0.066667", "NOT_SPEAKING"),
                ("0.100000", "SPEAKING_AUDIBLE"),
                ("0.133333", "SPEAKING_AUDIBLE"),
                ("0.166667", "NOT_SPEAKING"),
            )
        ]
    }


def test_ego4d_clips_that_are_damaged_are_left_out(tmp_path, capsys):
    ego4d(tmp_path / "source")
    (tmp_path / "source" / "clips" / "uid-train.mp4").write_bytes(b"no video")
    assert exit_status(import_dataset.main, "ego4d", tmp_path / "source", tmp_path / "out") == 1
    assert "uid-train" in capsys.readouterr().err
    assert list(lines_of(tmp_path / "out")) == ["annotations/val/uid-val-activespeaker.csv"]
    assert os.listdir(tmp_path / "out" / "videos") == ["val"]


def test_ego4ds_own_number_stands_beside_that_of_detected_tracks(tmp_path, capsys):
    ego4d(tmp_path / "source")
    exit_status(import_dataset.main, "ego4d", tmp_path / "source", tmp_path / "out")
    rows = ava.read_split(tmp_path / "out" / "annotations" / "val")
    ava.write_predictions(tmp_path / "p.csv", rows, np.array([0.9, 0.8, 0.3, 0.2]))
    given = ["--groundtruth", tmp_path / "out" / "annotations" / "val", "--predictions", tmp_path / "p.csv", "--ego4d"]
    assert exit_status(evaluate.main, *given, "--detected", "--json", tmp_path / "result.json") == 0
    assert json.loads((tmp_path / "result.json").read_text())["average_precision_ego4d"] == pytest.approx(2 / 3)
    assert "Ego4D" in capsys.readouterr().out
    assert "--detected" in refusal(capsys, evaluate.main, *given)


def test_asw_labels_hold_for_five_frames_and_what_is_not_evaluated_is_left_out(tmp_path):
    asw(tmp_path / "source")
    shutil.move(tmp_path / "source" / "original", tmp_path / "youtube")
    words = ["asw", tmp_path / "source", tmp_path / "out", "--videos", tmp_path / "youtube"]
    assert exit_status(import_dataset.main, *words) == 0
    lines = lines_of(tmp_path / "out" / "annotations" / "train")["-yt0train-activespeaker.csv"]
    box = "0.391432,-0.010000,0.463897,0.162444"
    times = [f"{28.4 + 0.04 * frame:.2f}" for frame in range(-2, 8)]
    assert lines == [
        f"-yt0train,{time},{box},{label},-yt0train:track_000000"
        for time, label in zip(times, ["NOT_SPEAKING"] * 5 + ["SPEAKING_AUDIBLE"] * 5, strict=True)
    ]


def test_the_speakers_of_ava_avd_are_left_out(tmp_path):
    ava_avd(tmp_path / "source")
    assert exit_status(import_dataset.main, "ava-avd", tmp_path / "source", tmp_path / "out") == 0
    lines = lines_of(tmp_path / "out" / "annotations" / "test")["avd2test-activespeaker.csv"]
    assert lines == [f"avd2test,900.{frame},0.1,0.2,0.3,0.4,NOT_SPEAKING,avd2test:0" for frame in ("00", "04")]


EGO4D_TRACK = json.dumps(
    {
        "videos": [
            {
                "clips": [
                    {
                        "clip_uid": "uid-val",
                        "persons": [
                            {
                                "voice_segments": [],
                                "tracking_paths": [
                                    {
                                        "track_id": "7",
                                        "track": [{"frame": "FRAME", "x": 0, "y": 0, "width": 1, "height": 1}],
                                    }
                                ],
                            }
                        ],
                    }
                ]
            }
        ]
    }
).replace('"FRAME"', "FRAME")


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        ("wasd", "csv", None),
        ("wasd", "csv/val_orig.csv", "video_id,frame_timestamp\nv,0.1\n"),
        ("wasd", "eval/wasd_metadata.csv", "Video,Category\nvalA_0-30,5\n"),
        ("wasd", "eval/wasd_metadata.csv", "Video,Category\nvalA_0-30,4\nvalA_0-30,1\n"),
        ("wasd", "eval/wasd_metadata.csv", ""),
        ("unitalk", "sub_categories/test_noise.csv", "valB_30-60\nvalB_30-60\n"),
        ("ego4d", "annotations", None),
        ("ego4d", "clips", None),
        ("ego4d", "annotations/av_val.json", "{}"),
        ("ego4d", "annotations/av_val.json", '{"videos": [{"clips": [{"clip_uid": "uid-val"}]}]}'),
        ("ego4d", "annotations/av_val.json", '{"videos": 3}'),
        ("ego4d", "annotations/av_val.json", EGO4D_TRACK.replace("FRAME", "-1")),
        ("ego4d", "annotations/av_val.json", EGO4D_TRACK.replace("FRAME", "1" + 20 * "0")),
        ("asw", "original", None),
        ("asw", "split/valset.list", None),
        ("asw", "json/yt1val.json", None),
        ("asw", "json/yt1val.json", '{"t": [{"time": 1.0, "bbox": [0, 0, 1], "label": 1, "eval": 1}]}'),
        ("asw", "json/yt1val.json", '{"t": [{"time": "x", "bbox": [0, 0, 1, 1], "label": 1, "eval": 1}]}'),
        ("asw", "json/yt1val.json", '{"a/b": [{"time": 1.0, "bbox": [0, 0, 1, 1], "label": 1, "eval": 1}]}'),
        ("asw", "json/yt1val.json", '{"t": [[]]}'),
        ("ava-avd", "dataset/tracks", None),
        ("ava-avd", "dataset/videos", None),
        (
            "ava-avd",
            "dataset/tracks/avd1val-activespeaker.csv",
            "avd1val,900.0,0.1,0.2,0.3,0.4,NOT_SPEAKING,avd1val:0\n",
        ),
        ("ava-avd", "dataset/split/val.list", "-avd0train_c_02\n"),
        ("ava-avd", "dataset/split/val.list", "avd1val\n"),
    ],
)
def test_a_source_of_another_layout_is_refused_before_anything_is_written(name, path, content, tmp_path, capsys):
    MAKE[name](tmp_path / "source")
    place = tmp_path / "source" / path
    if content is not None:
        place.write_text(content)
    elif place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    message = refusal(capsys, import_dataset.main, name, tmp_path / "source", tmp_path / "out")
    assert place.name in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_face_that_is_there_twice_is_refused(tmp_path, capsys):
    asw(tmp_path / "source")
    path = tmp_path / "source" / "json" / "yt1val.json"
    tracks = json.loads(path.read_text())
    write_json(path, {"track_000000": tracks["track_000000"] * 2})
    assert "yt1val:track_000000" in refusal(capsys, import_dataset.main, "asw", tmp_path / "source", tmp_path / "out")


def test_talkies_is_left_out(tmp_path):
    assert exit_status(import_dataset.main, "talkies", tmp_path, tmp_path / "out") == 2
    assert os.listdir(tmp_path) == []


def test_categories_of_a_set_come_without_crops_and_lists_too(tmp_path, capsys):
    wasd(tmp_path / "source")
    for name in ("clips_videos", "clips_audios", "orig_videos", "eval"):
        shutil.rmtree(tmp_path / "source" / name)
    assert exit_status(import_dataset.main, "wasd", tmp_path / "source", tmp_path / "out") == 0
    notes = capsys.readouterr().out
    assert {name for name in ("clips_videos", "clip_audio", "wasd_metadata.csv") if name not in notes} == set()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".made", "annotations"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "video,category\nvalA_0-30,x\n",
        "video_id,category\nvalA_0-30,x\nvalA_0-30,y\n",
        "video_id,category\nvalA_0-30\n",
        "video_id,category\nelsewhere,x\n",
    ],
)
def test_other_categories_are_refused(content, tmp_path, capsys):
    unitalk(tmp_path / "source")
    exit_status(import_dataset.main, "unitalk", tmp_path / "source", tmp_path / "out")
    rows = ava.read_split(tmp_path / "out" / "annotations" / "val")
    ava.write_predictions(tmp_path / "all.csv", rows, np.zeros(len(rows)))
    path = tmp_path / "mine.csv"
    if content is not None:
        path.write_text(content)
    given = ["--groundtruth", tmp_path / "out" / "annotations" / "val", "--predictions", tmp_path / "all.csv"]
    assert str(path) in refusal(capsys, evaluate.main, *given, "--categories", path)
