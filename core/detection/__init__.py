"""Who speaks in any video.

from core.detection import ActiveSpeakerDetector

video = ActiveSpeakerDetector().detect("interview.mp4")
for track in video.tracks:
    print(track.id, track.times_s[0], track.probabilities.mean())
"""

__all__ = ["ActiveSpeakerDetector"]


def __getattr__(name: str) -> type:
    """`ActiveSpeakerDetector`, imported when it is asked for: PyTorch, FFmpeg and OpenCV take seconds to load."""
    if name != "ActiveSpeakerDetector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from core.detection.detector import ActiveSpeakerDetector

    return ActiveSpeakerDetector
