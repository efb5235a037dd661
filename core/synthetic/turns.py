"""Who speaks when in the synthetic set, heard and unheard; the difficulty of the set lies here.

At any time at most one voice is heard: that of a visible head, or of somebody off screen. Heads that are not heard may
mime: move their mouths to speech of their own that is not in the audio. So the audio does not tell which head speaks,
nor the video whether a moving mouth is heard.

Most miming lies in silences of the audio, for the encoder adds the evidence of its two streams: it can learn that a
mouth moves AND somebody is heard, but not whether the two are in step. A mimed turn reaches into the heard turns around
it, and sometimes lasts through one: those times look like speech within a clip, and only the frames before and after,
or the other heads, tell them apart.
"""

from collections.abc import Sequence

import numpy as np

OFF_SCREEN = -1
HEARD_ON_SCREEN = (0.8, 0.92, 0.95, 0.97)  # probability that a turn belongs to one of the 1, 2, 3, 4 heads
TURN_S = (1.0, 4.0)
SILENCE_S, PAUSE_S = (0.8, 2.6), (0.1, 0.5)  # between two heard turns
SILENCES = 0.65  # probability of the former
STILL_HEADS = 0.1  # share of heads that never mime
MIMED_SILENCE = 0.95  # probability that another head mimes in a silence
MIMED_TURN = 0.06  # and that it does so throughout a turn of somebody else
SPILL_S = (0.0, 0.7)  # how far a mimed turn reaches into the audio before and after
REST_S = 0.35  # between a head's heard and mimed speech


def heard_turns(rng: np.random.Generator, seconds: float, heads: int) -> list[tuple[float, float, int]]:
    """Turns (start_s, end_s, head or OFF_SCREEN) one after the other; a shot may begin in the middle of one."""
    turns, time_s = [], -rng.uniform(0, 2.5)
    while time_s < seconds:
        on_screen = rng.random() < HEARD_ON_SCREEN[heads - 1]
        end_s = time_s + rng.uniform(*TURN_S)
        turns.append((time_s, end_s, int(rng.integers(heads)) if on_screen else OFF_SCREEN))
        time_s = end_s + rng.uniform(*(SILENCE_S if rng.random() < SILENCES else PAUSE_S))
    return turns


def mimed_turns(
    rng: np.random.Generator, seconds: float, heard: Sequence[tuple[float, float]], own: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Turns of unheard speech of one head: most in the silences between heard turns, some beside others' turns.

    Args:
        rng: random generator.
        seconds: length of the shot.
        heard: all heard turns of the shot, in order.
        own: those of this head, during which and shortly around which it does not mime.
    """
    if rng.random() < STILL_HEADS:
        return []
    ends = [0.0, *(end for _, end in heard)]
    starts = [*(start for start, _ in heard), seconds]
    silences = [(a, b) for a, b in zip(ends, starts, strict=True) if b - a >= SILENCE_S[0]]
    mimed = [silence for silence in silences if rng.random() < MIMED_SILENCE]
    # They begin before the audio ends and end after it begins: for a short time they look like speech that is heard.
    turns = [(a - rng.uniform(*SPILL_S), b + rng.uniform(*SPILL_S)) for a, b in mimed]
    turns += [turn for turn in heard if rng.random() < MIMED_TURN]
    for start_s, end_s in own:
        apart = [(a, min(b, start_s - REST_S)) for a, b in turns] + [(max(a, end_s + REST_S), b) for a, b in turns]
        turns = [(a, b) for a, b in apart if b - a > 0.5]
    return _merged(turns)


def _merged(turns: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of turns, in order."""
    union: list[tuple[float, float]] = []
    for start_s, end_s in sorted(turns):
        if union and start_s <= union[-1][1]:
            union[-1] = (union[-1][0], max(end_s, union[-1][1]))
        else:
            union.append((start_s, end_s))
    return union
