"""Exported whole-track encoders on the annotated tracks of a data set in AVA layout: average precision, and time.

    python scripts/export.py light_asd --int8 --out int8
    python scripts/export.py light_asd --out exported
    python benchmarks/exported.py DIR exported/light_asd.onnx int8/light_asd_int8.onnx      # DIR/videos/val, ...
    python benchmarks/exported.py DIR FILE.onnx FILE.xml --split train --videos 4 --runtimes OpenVINO

Prints a line for each file and runtime: the average precision, and the processor time of a face on one thread. Every
track goes through all of them in turn, so that whatever else the machine does meets all alike.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import annotated
from core.evaluation.metrics import average_precision
from core.export.files import in_onnxruntime, in_openvino
from core.formats import ava
from core.inputs.mfcc import track_mfcc, track_samples
from core.media.container import MediaFile
from core.media.cropping import box_crop
from core.media.video_audio import audio_on_disk
from core.media.video_files import find_video
from core.runtime.errors import exits_cleanly

RUNTIMES = {"onnxruntime": in_onnxruntime, "OpenVINO": in_openvino}


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data set in AVA layout")
    parser.add_argument("files", nargs="+", help="networks of whole tracks; .xml are OpenVINO's")
    parser.add_argument("--split", default="val")
    parser.add_argument("--videos", type=int, help="the first ones only")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # the runtimes take as many
    runs = {
        (file, runtime): RUNTIMES[runtime](file)
        for file in arguments.files
        for runtime in arguments.runtimes
        if runtime == "OpenVINO" or file.endswith(".onnx")
    }
    seconds, scores, speaking = dict.fromkeys(runs, 0.0), {key: [] for key in runs}, []
    for inputs, labels in tracks(arguments.data, arguments.split, arguments.videos):
        speaking.append(labels)
        for key, run in runs.items():
            begin = time.process_time()
            logits = run(inputs)[0][0]
            seconds[key] += time.process_time() - begin
            scores[key].append(logits[:, 1] - logits[:, 0])
    speaking = np.concatenate(speaking)
    print(f"{len(speaking)} faces of {arguments.data}, {arguments.split}")
    print("| file | runtime | average precision | ms a face |\n|---|---|---:|---:|")
    for (file, runtime), own in scores.items():
        precision = average_precision(speaking, np.concatenate(own))
        print(
            f"| {Path(file).name} | {runtime} | {precision:.4f} | {1e3 * seconds[file, runtime] / len(speaking):.2f} |"
        )


def tracks(data: Path, split: str, videos: int | None) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """What an exported network reads of each annotated track, and whether the face is heard speaking, (time,)."""
    for name, path in list(ava.annotation_files(data / "annotations" / split).items())[:videos]:
        rows = annotated.read_tracks(path)
        numbers, times = annotated.track_numbers(rows), rows["time_s"].to_numpy()
        with MediaFile(find_video(data / "videos" / split, name)) as media, audio_on_disk(media) as audio:
            faces = dict(annotated.cut_faces(media, rows, box_crop))
            for number in range(numbers.max() + 1):
                own = np.flatnonzero(numbers == number)
                samples = audio.part(times[own[0]], track_samples(len(own)))
                inputs = {
                    "mfcc": track_mfcc(samples, np.arange(len(own)))[None],
                    "faces": np.stack([faces[row] for row in own])[None],
                }
                yield inputs, (rows["label"].iloc[own] == "SPEAKING_AUDIBLE").to_numpy()


if __name__ == "__main__":
    main()
