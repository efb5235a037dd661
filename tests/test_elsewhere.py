"""Files of a bucket: moto's S3 server on this machine, which also fails on order."""

import argparse
import json
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import fsspec
import pytest
import ray
import torch
from detections import Squares
from moto.server import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from tiny import CLIPS, CROP_SIZE, as_options, audio_of, exit_status, refusal, tiny_frame, tree
from videos import encode
from werkzeug.serving import make_server

import ASC_forward
import detect
import STE_forward
from ava_asd import download
from core.models import ResidualContext, resnet18_two_streams
from core.runtime import elsewhere
from core.runtime.errors import MediaError, UserError
from core.runtime.provenance import Files, Record
from data import extract_audio_tracks, extract_face_crops_time, slice_audio_tracks
from scripts import export_clips

ROOT = Path(__file__).resolve().parents[1]
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFATEST", "AWS_SECRET_ACCESS_KEY": "secretofatest"}

SETTINGS = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}


class Bucket:
    """S3 on 127.0.0.1.

    `faults` says what comes in place of answers: (method, part of the key) -> "500", "403", "cut",
    "short", "short part" or "silent".
    """

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.faults: dict[tuple[str, str], str] = {}
        self.asked: list[tuple[str, str]] = []
        self.go_on = threading.Event()  # ends the silence of a fault
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, environ, start):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path))
        for (of, part), fault in self.faults.items():
            if fault == "short part" and "HTTP_RANGE" not in environ:
                continue
            if method == of and part in path and fault == "silent":
                self.go_on.wait(60)
            elif method == of and part in path:
                length = 1000 if fault == "cut" else 100
                status = {"500": "500 Internal Server Error", "403": "403 Forbidden"}.get(fault, "200 OK")
                start(status, [("Content-Length", str(length)), ("ETag", '"x"')])
                return iter([b"x" * 100])
        return self.app(environ, start)

    def fetched_and_put(self) -> list[str]:
        """The media that were asked for, and what was put, but for what only shows that something may be put."""
        fetched = [path for method, path in self.asked if method == "GET" and path.endswith((".mp4", ".wav", ".arrow"))]
        return fetched + [path for method, path in self.asked if method == "PUT" and ".part-" not in path]

    def __enter__(self) -> "Bucket":
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.go_on.set()
        self.server.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with Bucket() as server:
        yield server


@pytest.fixture
def bucket(server, monkeypatch) -> Iterator[S3FileSystem]:
    """The file system of an empty bucket, `s3://bucket`."""
    for name, value in (KEYS | SETTINGS | {"AWS_ENDPOINT_URL": server.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(elsewhere, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    files = S3FileSystem(use_listings_cache=False)
    files.mkdir("bucket")
    server.faults.clear()
    server.asked.clear()
    yield files
    server.faults.clear()
    files.rm("bucket", recursive=True)


@pytest.fixture
def run(light_weights, monkeypatch):
    monkeypatch.setattr("core.detection.detector.find_detector", lambda *_: Squares())
    options = "--weights", light_weights, "--min-face", 10, "--no-people"
    return lambda *arguments: exit_status(detect.main, *arguments, *options)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "faces.mp4"
    return encode(path, [tiny_frame(n, 2) for n in range(40)], audio=audio_of(CLIPS[0])[: 40 * 640], crf="8")


def test_videos_of_a_bucket_are_detected_into_one_as_here(run, bucket, server, video, tmp_path, capsys):
    for name in ("a.mp4", "b.mp4"):
        bucket.put_file(str(video), f"bucket/videos/{name}")
        (tmp_path / name).write_bytes(video.read_bytes())
    formats = ("--format", "csv,json,rttm,overlay,report")
    assert run("s3://bucket/videos", "--out", "s3://bucket/found", *formats) == 0
    assert not any(path.is_file() for path in elsewhere.place("s3://bucket").rglob("*"))  # copies that were left
    assert run(tmp_path, "--out", tmp_path / "found", *formats) == 0
    here = {path.relative_to(tmp_path / "found").as_posix(): path for path in (tmp_path / "found").rglob("*")}
    there = bucket.find("bucket/found")
    assert sorted(there) == sorted(f"bucket/found/{name}" for name, path in here.items() if path.is_file())
    for name in there:
        if "/.made/" not in name:
            assert bucket.cat(name) == here[name.removeprefix("bucket/found/")].read_bytes(), name
    record = json.loads(bucket.cat("bucket/found/a.asd/.made/outputs.json"))
    assert record["notes"]["video"] == "s3://bucket/videos/a.mp4"

    for options in (["--speaking", "--min-seconds", 0.1], ["--all"]):
        assert exit_status(export_clips.main, "s3://bucket/found/a.asd", "--out", "s3://bucket/clips", *options) == 0
        assert exit_status(export_clips.main, tmp_path / "found" / "a.asd", "--out", tmp_path / "clips", *options) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "clips").iterdir() if path.is_file()}
    assert len(made) > 3
    assert {name: bucket.cat(f"bucket/clips/{name}") for name in made} == made

    server.asked.clear()
    before = {name: bucket.info(name)["LastModified"] for name in there}
    assert run("s3://bucket/videos", "--out", "s3://bucket/found", *formats) == 0
    assert {name: bucket.info(name)["LastModified"] for name in there} == before
    assert server.fetched_and_put() == []
    out = "".join(capsys.readouterr())
    assert "s3://bucket/videos/a.mp4: done before, s3://bucket/found/a.asd" in out
    assert not any(value in out or ".elsewhere" in out for value in KEYS.values())


@pytest.fixture
def ray_ends() -> Iterator[None]:
    yield
    ray.shutdown()


def test_preparation_in_a_bucket_gives_what_it_gives_here(bucket, server, tiny_set, prepared, ray_ends):
    """Also what is recorded of it, but for sizes and times."""
    for video in (tiny_set / "videos" / "train").iterdir():
        bucket.put_file(str(video), f"bucket/videos/{video.name}")
    bucket.put_file(str(prepared / "csv" / "train.csv"), "bucket/train.csv")
    videos, csv = "s3://bucket/videos", "s3://bucket/train.csv"
    audio = extract_audio_tracks.main, videos, csv, "s3://bucket/tracks"
    entities = slice_audio_tracks.main, "s3://bucket/tracks", csv, "s3://bucket/audio"
    crops = extract_face_crops_time.main, videos, csv, "s3://bucket/crops", "--size", CROP_SIZE
    for command in (audio, entities, (*crops, "--cluster", "local")):
        assert exit_status(*command) == 0
    assert not elsewhere.scratch_folder().exists()  # which the workers had made again
    for name in ("tracks", "audio", "crops"):
        there = {path.removeprefix(f"bucket/{name}/"): bucket.cat(path) for path in bucket.find(f"bucket/{name}")}
        here = {path: (prepared / name / "train" / path).read_bytes() for path in there}
        assert tree(prepared / name / "train").keys() <= there.keys()
        assert {path: plain(content) for path, content in there.items()} == {p: plain(c) for p, c in here.items()}
    server.asked.clear()
    for command in (audio, entities, crops):
        assert exit_status(*command) == 0
    assert server.fetched_and_put() == []


CLIP = 3


@pytest.fixture(scope="module")
def weights(light_weights, tmp_path_factory) -> Iterator[dict[str, Path]]:
    """State dicts of untrained networks, by name."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    paths = {name: folder / f"{name}.pth" for name in ("resnet18_two_streams", "residual")}
    torch.save(resnet18_two_streams(rgb_stack_size=CLIP).state_dict(), paths["resnet18_two_streams"])
    torch.save(ResidualContext().state_dict(), paths["residual"])
    yield {**paths, "light_asd": light_weights}
    shutil.rmtree(folder)


def forwarding(inputs: object, out: object, weights: dict[str, Path], backbone: str, form: str) -> list[list[object]]:
    """The commands that make features, and logits of them where both are of whole tracks; of the training split."""
    places = {"video_dir": f"{inputs}/crops", "audio_dir": f"{inputs}/audio", "features_out": f"{out}/features"}
    params = {"backbone": backbone, "weights": weights[backbone], "crop_size": CROP_SIZE, "threads": 0, "format": form}
    encoder = as_options("STE_inputs", csv_train_full=f"{inputs}/csv/train.csv", **places)
    score = as_options("ASC_inputs_forward", features_train_full=f"{out}/features/train", logits_out=f"{out}/logits")
    score += as_options("ASC_forward_params", weights=weights["residual"])
    commands = [
        [STE_forward.main, CLIP, "cpu", "--split", "train", *encoder, *as_options("STE_forward_params", **params)],
        [ASC_forward.main, "cpu", "--split", "train", *score],
    ]
    return commands if form == "arrow" else commands[:1]


@pytest.fixture
def prepared_there(bucket, prepared) -> str:
    """What was prepared, copied into the bucket with its records; the URL."""
    for path in prepared.rglob("*"):
        if path.is_file():
            bucket.put_file(str(path), f"bucket/prepared/{path.relative_to(prepared)}")
    return "s3://bucket/prepared"


@pytest.mark.parametrize(
    ("backbone", "form", "options"),
    [
        ("light_asd", "arrow", ["--jobs", 2]),
        ("light_asd", "csv", []),
        ("resnet18_two_streams", "arrow", []),
    ],
)
def test_forwarding_in_a_bucket_gives_what_it_gives_here(
    bucket, server, prepared, prepared_there, weights, tmp_path, backbone, form, options
):
    """Also what is recorded of it; what is done is not fetched again."""
    here = forwarding(prepared, tmp_path, weights, backbone, form)
    there = forwarding(prepared_there, "s3://bucket/out", weights, backbone, form)
    for command in here:
        assert exit_status(*command) == 0
    for command in there:
        assert exit_status(*command, *options) == 0
    made = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(tree(tmp_path)) == 2 * len(there)
    found = {path.removeprefix("bucket/out/"): bucket.cat(path) for path in bucket.find("bucket/out")}
    assert {path: plain(content) for path, content in found.items()} == {p: plain(c) for p, c in made.items()}
    server.asked.clear()
    for command in there:
        assert exit_status(*command) == 0
    assert server.fetched_and_put() == []
    assert not any(path.is_file() for path in elsewhere.place("s3://bucket").rglob("*"))


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("crops/train/tinyTrain_2.arrow", "cut"),
        ("audio/train/tinyTrain_2_0000_0060:1.wav", "short"),
        ("features/train/tinyTrain_2.arrow", "403"),
    ],
)
def test_a_video_whose_files_do_not_arrive_is_forwarded_the_next_time(
    bucket, server, prepared_there, weights, capsys, part, fault
):
    stage = int(part.startswith("features"))
    *before, command = forwarding(prepared_there, "s3://bucket/out", weights, "light_asd", "arrow")[: 1 + stage]
    assert [exit_status(*one) for one in before] == [0] * stage
    server.faults["GET", part] = fault
    assert exit_status(*command) == 1
    err = capsys.readouterr().err
    assert len(re.findall(rf"s3://\S*{part}", err)) == 1
    assert ("tried" in err) == (fault != "403")
    out = ("features", "logits")[stage]
    assert [Path(path).stem for path in bucket.glob(f"bucket/out/{out}/train/*.*") if ".made" not in path] == [
        "-tinyTrain1"
    ]
    server.faults.clear()
    assert exit_status(*command) == 0
    assert len(bucket.ls(f"bucket/out/{out}/train")) == 3  # with the records


def test_features_of_another_encoder_are_noticed_in_a_bucket(bucket, prepared_there, weights, capsys):
    command, score = forwarding(prepared_there, "s3://bucket/out", weights, "light_asd", "arrow")
    assert exit_status(*command) == 0
    assert exit_status(*command, "--shard", "2/2", *as_options("STE_forward_params", precision="bf16")) == 0
    message = refusal(capsys, *score)
    assert all(fact in message for fact in ("precision", "float32", "bfloat16", "tinyTrain_2", "s3://bucket/out"))


def plain(content: bytes) -> Any:
    """A record without what is particular to a disk or bucket; other files as they are."""
    if not content.startswith(b"{"):
        return content
    record = json.loads(content)
    if "outputs" not in record:
        return record
    record["outputs"] = {name: state[0] for name, state in record["outputs"].items()}
    for value in record["made_of"].values():
        if isinstance(value, dict):
            value.pop("files")
    return record


def test_the_static_system_reads_videos_of_a_bucket(bucket, server, laid_out, extracted, capsys):
    for video in laid_out.at("vid_save_path").iterdir():
        bucket.put_file(str(video), f"bucket/videos/{video.name}")
    shutil.rmtree(laid_out.at("vid_save_path"))
    laid_out.configure(vid_save_path="s3://bucket/videos")
    server.faults["GET", "tinyTrain_2.mp4"] = "cut"
    assert laid_out.extract("videos") == [1]
    assert capsys.readouterr().err.count("s3://bucket/videos/tinyTrain_2.mp4") == 1
    server.faults.clear()
    assert laid_out.extract() == [0, 0, 0]
    assert tree(laid_out.at("extracted_path")) == tree(extracted.at("extracted_path"))
    server.asked.clear()
    assert laid_out.extract() == [0, 0, 0]
    assert server.fetched_and_put() == []
    server.asked.clear()
    assert len(laid_out.windows()) == len(extracted.windows())
    assert server.asked == []  # by what a training does
    assert "s3://bucket/videos" in refusal(capsys, download.main, "videos", laid_out.path, laid_out.data)


def test_crops_in_folders_are_not_written_into_a_bucket(bucket, tiny_set, prepared, capsys):
    csv = prepared / "csv" / "train.csv"
    options = "s3://bucket/crops", "--layout", "folders"
    assert "packed" in refusal(capsys, extract_face_crops_time.main, tiny_set / "videos" / "train", csv, *options)


@pytest.mark.parametrize(
    "command",
    [
        "evaluate.py --groundtruth g --predictions p --json s3://bucket/a.json",
        "evaluate.py --groundtruth g --predictions p --plot s3://bucket/a.png",
        "STE_forward.py 11 cpu --config s3://bucket/config.py",
        "STE_forward.py 11 cpu --set STE_inputs.models_out=s3://bucket/models",
        "STE_train.py 11 cpu --set STE_inputs.video_dir=s3://bucket/crops",
        "ASC_train.py cpu --set ASC_inputs.features_train_full=s3://bucket/features",
        "ava_asd/extract.py videos configs/config.yaml s3://bucket/data",
        "data/augment_annotations.py annotations s3://bucket/train.csv",
        "detect.py a.mp4 --names s3://bucket/names.json",
    ],
)
def test_urls_that_a_command_does_not_take_are_refused(command, monkeypatch, capsys):
    script, *arguments = command.split()
    monkeypatch.syspath_prepend(ROOT)
    main = runpy.run_path(str(ROOT / script))["main"]
    url = next(re.search("s3:.*", argument)[0] for argument in arguments if "s3:" in argument)
    message = refusal(capsys, main, *arguments)
    assert re.search(f"{url}.*expected a path of this machine", message)


@pytest.mark.parametrize("fault", ["500", "cut", "short", "403"])
def test_a_video_that_does_not_arrive_is_reported_and_the_others_are_done(
    bucket, server, tiny_set, prepared, capsys, fault
):
    for video in (tiny_set / "videos" / "train").iterdir():
        bucket.put_file(str(video), f"bucket/videos/{video.name}")
    server.faults["GET", "tinyTrain_2.mp4"] = fault
    csv = prepared / "csv" / "train.csv"
    command = extract_audio_tracks.main, "s3://bucket/videos", csv, "s3://bucket/tracks"
    assert exit_status(*command) == 1
    err = capsys.readouterr().err
    assert err.count("s3://bucket/videos/tinyTrain_2.mp4") == 1
    tries = 1 if fault == "403" else elsewhere.TRIES
    assert ("tried" in err) == (tries > 1)
    assert [path for path in bucket.find("bucket/tracks") if path.endswith(".wav")] == ["bucket/tracks/-tinyTrain1.wav"]
    assert server.asked.count(("GET", "/bucket/videos/tinyTrain_2.mp4")) == tries

    server.faults.clear()
    assert exit_status(*command) == 0
    assert bucket.exists("bucket/tracks/tinyTrain_2.wav")


def test_outputs_that_do_not_arrive_are_made_again(run, bucket, server, video, capsys):
    for name in ("a.mp4", "b.mp4"):
        bucket.put_file(str(video), f"bucket/{name}")
    server.faults["PUT", "a.asd/speakers.json"] = "500"
    command = "s3://bucket/a.mp4", "s3://bucket/b.mp4", "--format", "csv,json"
    assert run(*command) == 1
    assert re.search(r"s3://bucket/a\.asd/speakers\.json.*tried", capsys.readouterr().err)
    record = json.loads(bucket.cat("bucket/a.asd/.made/outputs.json"))
    assert (record["outputs"], record["begun"]) == ({}, ["speakers.json", "tracks.csv"])

    server.faults.clear()
    assert run(*command) == 0
    assert "b.mp4: done before" in (printed := "".join(capsys.readouterr()))
    assert "a.mp4: done before" not in printed
    assert bucket.cat("bucket/a.asd/speakers.json").replace(b"a.mp4", b"b.mp4") == bucket.cat(
        "bucket/b.asd/speakers.json"
    )


def test_where_nothing_may_be_written_the_command_ends(run, bucket, server, video, capsys):
    for name in ("a.mp4", "b.mp4"):
        bucket.put_file(str(video), f"bucket/{name}")
    server.faults["PUT", ".asd"] = "403"  # as for keys that another rule is for
    assert run("s3://bucket", "--format", "csv") == 2
    assert re.search(r"error: s3://bucket/a\.asd/\.made/tracks\.json.*Forbidden", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("out", "fault", "fact"), [("bucket/found", "403", "Forbidden"), ("absent", None, "not exist")]
)
def test_places_that_cannot_be_written_to_are_found_before_any_work(
    run, bucket, server, video, tiny_set, prepared, capsys, out, fault, fact
):
    if fault:
        server.faults["PUT", out] = fault
    assert run(video, "--out", f"s3://{out}") == 2
    split = tiny_set / "videos" / "train", prepared / "csv" / "train.csv"
    assert exit_status(extract_audio_tracks.main, *split, f"s3://{out}") == 2
    err = capsys.readouterr().err
    assert len(re.findall(f"error: s3://{out}.*{fact}", err)) == len(err.splitlines()) == 2
    assert server.fetched_and_put() == []


WRITER = """
from pathlib import Path
from core.runtime import elsewhere
from core.runtime.provenance import Record
folder = elsewhere.place("s3://bucket/out")
with Record(folder, "a", "writing", {}).making(["a.bin"]):
    (folder / "a.bin").write_bytes(b"x" * 1000)
"""


def test_a_process_that_is_killed_while_it_puts_leaves_nothing_that_counts(bucket, server, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server.faults["PUT", "a.bin"] = "silent"
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=ROOT) as process:
        while ("PUT", "/bucket/out/a.bin") not in server.asked:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    server.go_on.set()
    record = Record(elsewhere.place("s3://bucket/out"), "a", "writing", {})
    assert record.missing(["a.bin"]) == ["a.bin"]
    assert "a.bin" in record.written  # so that the next run may write it


def test_what_changes_in_the_bucket_is_noticed(bucket, tmp_path):
    folder, source = elsewhere.place("s3://bucket/out"), elsewhere.place("s3://bucket/in/a.txt")

    def record() -> Record:
        elsewhere.place("s3://bucket")  # as another command
        return Record(folder, "a", "copying", {"source": Files.one(source)})

    def copy() -> None:
        with record().making(["a.txt"]):
            (folder / "a.txt").write_bytes(source.read_bytes())
        elsewhere.forget()

    bucket.pipe("bucket/in/a.txt", b"one")
    copy()
    assert record().missing(["a.txt"]) == []
    bucket.pipe("bucket/in/a.txt", b"two")
    assert record().missing(["a.txt"]) == ["a.txt"]
    copy()
    assert bucket.cat("bucket/out/a.txt") == b"two"
    bucket.pipe("bucket/out/a.txt", b"six")
    assert record().missing(["a.txt"]) == ["a.txt"]
    bucket.rm_file("bucket/out/a.txt")
    assert record().missing(["a.txt"]) == ["a.txt"]
    bucket.pipe("bucket/out/b.txt", b"a user's")
    with pytest.raises(UserError, match=r"b\.txt is there"):
        record().missing(["b.txt"])


def test_a_large_object_comes_without_holes(bucket, server, monkeypatch):
    """s3fs would fetch it in parts, side by side, and not see that one of them is short."""
    content = os.urandom(10_000)
    bucket.pipe("bucket/large.mp4", content)
    monkeypatch.setattr(S3FileSystem, "default_block_size", 1000)
    server.faults["GET", "large.mp4"] = "short part"
    assert elsewhere.bring(elsewhere.place("s3://bucket/large.mp4")).read_bytes() == content


def test_a_report_does_not_refer_to_a_large_video_in_another_place(run, bucket, video, tmp_path, monkeypatch):
    monkeypatch.setattr("core.outputs.report_media.EMBED_BYTES", 1000)
    bucket.put_file(str(video), "bucket/videos/a.mp4")
    for out in (tmp_path, "s3://bucket/found"):
        assert run("s3://bucket/videos/a.mp4", "--out", out, "--format", "report,overlay") == 0
    page = (tmp_path / "a.asd" / "report.html").read_text()
    assert "overlay.mp4" in page
    assert "videos/a.mp4" not in page.replace("s3://bucket/videos/a.mp4", "")
    assert "../../videos/a.mp4" in bucket.cat("bucket/found/a.asd/report.html").decode()


def test_folders_are_asked_for_once_and_not_file_by_file(bucket, server):
    folder = elsewhere.place("s3://bucket/out")
    names = [f"{n}.txt" for n in range(5)]
    with Record(folder, "a", "writing", {}).making(names):
        for name in names:
            (folder / name).write_text(name)
    elsewhere.forget()
    elsewhere.place("s3://bucket")
    server.asked.clear()
    assert Record(folder, "a", "writing", {}).missing(names) == []
    assert sorted(server.asked) == [("GET", "/bucket"), ("GET", "/bucket"), ("GET", "/bucket/out/.made/a.json")]


@pytest.mark.parametrize(
    ("url", "facts"),
    [
        ("s3://AKIA:secret@bucket/key", "s3://BUCKET/KEY"),
        ("s3://bucket/a.mp4?X-Amz-Signature=secret", "s3://BUCKET/KEY"),
        ("s3:///a.mp4", "s3://BUCKET/KEY"),
        ("s3://bucket/../a.mp4", "s3://BUCKET/KEY"),
        ("https://example.com/found?token=secret", r"https://example.com/found.*s3://"),
    ],
)
def test_urls_of_other_forms_are_refused_without_what_may_be_secret(url, facts):
    with pytest.raises(UserError, match=facts) as raised:
        elsewhere.place(url)
    assert "secret" not in str(raised.value)


def test_urls_of_files_here_are_paths(tmp_path):
    assert elsewhere.place(tmp_path.as_uri()) == tmp_path
    assert elsewhere.url_of(tmp_path) is None


@pytest.mark.parametrize(
    ("broken", "facts"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "s3://bucket/videos.*credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://bucket/videos.*connect"),
        ({}, "no such video: s3://bucket/videos"),
    ],
)
def test_a_bucket_that_cannot_be_read_is_one_message(run, bucket, capsys, monkeypatch, broken, facts):
    for name, value in broken.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    assert run("s3://bucket/videos", "--out", "s3://bucket/found") == 2
    err = capsys.readouterr().err
    assert re.search(facts, err)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("hf", "huggingface_hub")])
def test_a_missing_package_is_named(run, capsys, monkeypatch, scheme, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert run(f"{scheme}://bucket/videos") == 2
    assert f"pip install {package}" in capsys.readouterr().err


class StatusError(Exception):
    def __init__(self, **attributes: object):
        super().__init__("no access")
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (OSError("Forbidden: b/bucket/o"), 1),  # of gcsfs
        (StatusError(code=401), 1),  # likewise
        (StatusError(response=argparse.Namespace(status_code=403)), 1),  # of huggingface_hub
        (StatusError(response=argparse.Namespace(status_code=503)), elsewhere.TRIES),
        (OSError("cut"), elsewhere.TRIES),
    ],
)
def test_refusals_of_other_buckets_are_told_from_faults(monkeypatch, error, tries):
    asked = []

    class Refusing:
        def info(self, url: str) -> dict:
            asked.append(url)
            raise error

    monkeypatch.setattr(fsspec, "filesystem", lambda *_, **__: Refusing())
    monkeypatch.setattr(elsewhere, "FIRST_DELAY_S", 0.01)
    with pytest.raises(MediaError, match=r"gs://bucket/a\.mp4") as raised:
        elsewhere.bring(elsewhere.place("gs://bucket/a.mp4"))
    assert len(asked) == tries
    assert ("refused" in str(raised.value)) == (tries == 1)


def test_no_credential_and_no_signature_is_in_any_output(run, bucket, server, video, tmp_path, capsys):
    bucket.put_file(str(video), "bucket/videos/a.mp4")
    signed = bucket.sign("bucket/videos/a.mp4")
    secrets = [*KEYS.values(), parse_qs(urlsplit(signed).query)["Signature"][0]]
    command = signed, "--out", "s3://bucket/found", "--format", "csv,json,report"
    server.faults["GET", "videos/a.mp4"] = "500"
    assert run(*command) == 1
    server.faults.clear()
    assert run(*command) == 0
    assert run(*command, "--jobs", 0) == 2
    server.faults["PUT", "tracks.csv"] = "500"
    assert run(*command, "--min-track", 0.5) == 1
    text = "".join(capsys.readouterr()).encode() + b"".join(bucket.cat(name) for name in bucket.find("bucket/found"))
    assert b"a.mkv" in text
    assert [secret for secret in secrets if secret.encode() in text or quote(secret, "").encode() in text] == []
