"""The examples that use exported networks without PyTorch give the scores that the project gives."""

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from track_models import used

from core.clip_utils import GRID_FPS
from core.export import networks
from core.inference.track_embedding import TrackEmbedder
from core.inference.tracks import OnePass
from core.media.container import MediaFile
from core.media.cropping import box_crop
from core.media.video import read_frames
from core.media.video_audio import audio_on_disk
from core.media.video_writer import write_video
from core.models import light_asd

pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[export]'")
from core.export import files

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
WEB = ROOT / "node_modules" / "onnxruntime-web" / "dist"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FIRST, FRAMES = 5, 30  # of the track
# A program that cannot load PyTorch, nor this repository.
WITHOUT_PYTORCH = (
    "import sys; sys.modules.update(torch=None, core=None); del sys.argv[0]; import runpy; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def moved(number: int) -> np.ndarray:
    """The face's box at a frame of the video, ([x1, y1, x2, y2],); at the end it reaches over the frame's edge."""
    return np.array([20.5, 10.25, 90.75, 88.5]) + 2 * number


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with an exported network, a video and its track; and the project's scores of it, (FRAMES,)."""
    folder = tmp_path_factory.mktemp("example")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (40, 9, 12, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    write_video(folder / "talk.mp4", pictures, GRID_FPS, (3000 * rng.standard_normal(40 * 640)).astype(np.int16))
    model = used(light_asd())
    torch.nn.init.normal_(model.lossAV.FC.weight)
    [whole, *_] = networks.track_encoder("light_asd", model, "box", {})
    files.export(whole, folder, "onnx")
    lines = ["frame,time_s,track_id,x1,y1,x2,y2"]
    with MediaFile(folder / "talk.mp4", as_played=True) as media, audio_on_disk(media) as audio:
        frames = list(read_frames(media))[FIRST : FIRST + FRAMES]
        scorer = OnePass(TrackEmbedder.of(model), audio, frames[0].time_s)
        for number, frame in enumerate(frames):
            scorer.push(box_crop(frame, moved(number)))
            lines.append(f"{FIRST + number},{frame.time_s:.6f},7,{','.join(map(str, moved(number)))}")
        logits, _ = scorer.finish()
    (folder / "tracks.csv").write_text("\n".join([*lines, f"{lines[-1].replace(',7,', ',8,')}"]) + "\n")
    return folder, logits[:, 1] - logits[:, 0]


@pytest.fixture(scope="module")
def printed(scored: tuple[Path, np.ndarray]) -> str:
    """What the example prints, run where PyTorch and this repository cannot be imported."""
    folder, _ = scored
    command = [sys.executable, "-c", WITHOUT_PYTORCH, EXAMPLES / "score_face_track.py"]
    arguments = ["light_asd.onnx", "talk.mp4", "tracks.csv", "7", "."]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def scores_in(text: str) -> np.ndarray:
    """(frame, [time_s, log odds])."""
    return np.array([line.split("\t") for line in text.strip().splitlines()], float)


def test_numpy_and_onnxruntime_give_the_scores_of_the_project(scored, printed):
    _, expected = scored
    assert np.ptp(expected) > 0.5
    found = scores_in(printed)
    np.testing.assert_allclose(found[:, 0], (FIRST + np.arange(FRAMES)) / GRID_FPS, atol=1e-3)
    np.testing.assert_allclose(found[:, 1], expected, atol=2e-3)


@pytest.mark.skipif(not WEB.is_dir(), reason=f"{WEB} is absent: npm install --no-save onnxruntime-web")
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed")
def test_a_browser_gives_the_scores_of_the_project(scored, printed):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    folder, expected = scored
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=ROOT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_api.sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/docs/examples/score_face_track.html")
        for name, file in (("network", "light_asd.onnx"), ("mfcc", "mfcc.bin"), ("faces", "faces.bin")):
            page.set_input_files(f"#{name}", folder / file)
        page.click("#score")
        page.wait_for_function("document.getElementById('scores').textContent", timeout=120_000)
        found = scores_in(page.text_content("#scores"))
        browser.close()
        server.shutdown()
    np.testing.assert_allclose(found[:, 1], expected, atol=2e-3)
