"""Who speaks, while people speak: frames and audio come in, scores go out a stated time later.

from core.live import LiveDetector

live = LiveDetector(delay_s=0.5)
live.push_audio(samples, time_s)
for scored in live.push_frame(image, time_s):
    print(scored.time_s, [(face.id, face.probability) for face in scored.faces])
"""

__all__ = ["LiveDetector"]


def __getattr__(name: str) -> type:
    """`LiveDetector`, imported when it is asked for: FFmpeg and OpenCV take seconds to load."""
    if name != "LiveDetector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from core.live.detector import LiveDetector

    return LiveDetector
