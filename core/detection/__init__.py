"""Who speaks in any video.

from core.detection import ActiveSpeakerDetector

video = ActiveSpeakerDetector().detect("interview.mp4")
for track in video.tracks:
    print(track.id, track.times_s[0], track.probabilities.mean())
"""

from core.detection.detector import ActiveSpeakerDetector

__all__ = ["ActiveSpeakerDetector"]
