"""Who speaks, without PyTorch, while the track goes on: the scores of faces and audio that come some frames at a time.

    python scripts/export.py light_asd --out exported
    python docs/examples/score_face_track.py exported/light_asd.onnx talk.mp4 talk.asd/tracks.csv 1 exported
    python docs/examples/score_as_it_comes.py exported light_asd 10

Plays the mfcc.bin and faces.bin that the second line wrote, 5 frames at a time, and prints each frame's number and log
odds of speaking, 10 frames (0.4 s) after it was seen. These are the scores of a track that ends where the frames end
that have come so far. Needs numpy and onnxruntime, and nothing of this repository: copy what you need.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

WINDOWS_PER_FRAME = 4


class LiveTrack:
    """Scores one face while it is seen.

    Args:
        folder: of the exported network's parts.
        name: of the network.
        delay: frames that are waited for before a frame is scored: the later, the surer.
    """

    def __init__(self, folder: Path, name: str, delay: int):
        parts = ("audio", "visual", "forward", "backward")
        self.parts = {part: onnxruntime.InferenceSession(f"{folder}/{name}_{part}.onnx") for part in parts}
        about = self.parts["visual"].get_modelmeta().custom_metadata_map
        # An embedding is final when this many frames have come after its own.
        self.reach = max(int(about["visual_context_frames"]), int(about["audio_context_frames"]))
        self.delay = delay
        [state] = [value for value in self.parts["forward"].get_inputs() if value.name == "state"]
        self.zeros = np.zeros((1, 1, state.shape[2]), np.float32)
        self.state = self.zeros  # of the forward GRU, before frame `begin`
        self.faces, self.mfcc = np.zeros((0, 112, 112), np.uint8), np.zeros((0, 13), np.float32)
        self.first = self.begin = self.scored = self.count = 0  # frames: the first kept, see above, and how many

    def push(self, faces: np.ndarray, mfcc: np.ndarray) -> np.ndarray:
        """Take the next faces, (time, 112, 112) uint8, and their MFCCs, (4 * time, 13) float32.

        Returns:
            Log odds of speaking of the frames that have become due, (n,).
        """
        self.faces, self.mfcc = np.concatenate((self.faces, faces)), np.concatenate((self.mfcc, mfcc))
        self.count += len(faces)
        embedded = {
            "audio": self._run("audio", mfcc=self.mfcc[None])[0][:, self.begin - self.first :],
            "visual": self._run("visual", faces=self.faces[None])[0][:, self.begin - self.first :],
        }
        output, _ = self._run("forward", **embedded, state=self.state)
        logits = self._run("backward", **embedded, forward=output, state=self.zeros)[0][0]
        due = max(self.scored, self.count - self.delay)
        scores = (logits[:, 1] - logits[:, 0])[self.scored - self.begin : due - self.begin]
        self.scored = due
        self._forget(embedded)
        return scores

    def _forget(self, embedded: dict[str, np.ndarray]) -> None:
        """Go on to the first frame that is not scored or not final, and drop what no later one needs."""
        begin = max(self.begin, min(self.scored, self.count - self.reach))
        if begin > self.begin:
            final = {name: values[:, : begin - self.begin] for name, values in embedded.items()}
            _, self.state = self._run("forward", **final, state=self.state)
        self.begin, first = begin, max(0, begin - self.reach)
        self.faces, self.mfcc = self.faces[first - self.first :], self.mfcc[WINDOWS_PER_FRAME * (first - self.first) :]
        self.first = first

    def _run(self, part: str, **inputs: np.ndarray) -> list[np.ndarray]:
        session = self.parts[part]
        return session.run(None, {value.name: inputs[value.name] for value in session.get_inputs()})


def played(folder: Path, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Faces and MFCCs of a track as they would come, some frames at a time."""
    faces = np.fromfile(folder / "faces.bin", np.uint8).reshape(-1, 112, 112)
    mfcc = np.fromfile(folder / "mfcc.bin", np.float32).reshape(-1, 13)
    for begin in range(0, len(faces), frames):
        end = begin + frames
        yield faces[begin:end], mfcc[WINDOWS_PER_FRAME * begin : WINDOWS_PER_FRAME * end]


def main() -> None:
    folder, name, delay = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    track, number = LiveTrack(folder, name, delay), 0
    for faces, mfcc in played(folder, frames=5):
        for score in track.push(faces, mfcc):
            print(f"{number}\t{score:.4f}", flush=True)
            number += 1


if __name__ == "__main__":
    main()
