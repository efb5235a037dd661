"""Who speaks when in the synthetic set, heard and unheard; the difficulty of the set lies here.

Plain turns have at most one voice at any time: that of a visible head, or of somebody off screen. Other conditions add
voices over them. Heads that are not heard may mime: move their mouths to speech of their own that is not in the audio.
So the audio does not tell which head speaks, nor the video whether a moving mouth is heard.

Most miming lies in silences of the audio, for the encoder adds the evidence of its two streams: it can learn that a
mouth moves AND somebody is heard, but not whether the two are in step. A mimed turn reaches into the heard turns around
it, and sometimes lasts through one: those times look like speech within a clip, and only the frames before and after,
or the other heads, tell them apart.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from core.synthetic.conditions import Conditions, drawn

OFF_SCREEN = -1
OFF_SCREEN_FACTORS = (1.0, 0.4, 0.25, 0.15)  # share of turns off screen with 1, 2, 3, 4 or more heads, of that with one
TURN_S = (1.0, 4.0)
SENTENCES_S = (2.0, 8.0)  # of a monologue
SILENCE_S, PAUSE_S = (0.8, 2.6), (0.1, 0.5)  # between two heard turns
SILENCES = 0.65  # probability of the former
SPILL_S = (0.0, 0.7)  # how far a mimed turn reaches into the audio before and after
REST_S = 0.35  # between a head's heard and mimed speech
BACK_CHANNEL_S = (0.3, 0.9)
OVERLAP_S = (0.3, 1.2)  # by which an interruption begins before the turn that it ends

Turn = tuple[float, float, int]  # start_s, end_s, head or OFF_SCREEN


def heard_turns(rng: np.random.Generator, seconds: float, heads: int, on_screen: float) -> list[Turn]:
    """Turns one after the other; a shot may begin in the middle of one.

    Args:
        rng: random generator.
        seconds: length of the shot.
        heads: in the shot.
        on_screen: share of turns that belong to the head of a shot with one; see `Conditions.heard_on_screen`.
    """
    turns, time_s = [], -rng.uniform(0, 2.5)
    visible = 1 - (1 - on_screen) * OFF_SCREEN_FACTORS[min(heads, len(OFF_SCREEN_FACTORS)) - 1]
    while time_s < seconds:
        seen = rng.random() < visible
        end_s = time_s + rng.uniform(*TURN_S)
        turns.append((time_s, end_s, int(rng.integers(heads)) if seen else OFF_SCREEN))
        time_s = end_s + rng.uniform(*(SILENCE_S if rng.random() < SILENCES else PAUSE_S))
    return turns


def monologue(rng: np.random.Generator, seconds: float, heads: int, on_screen: float) -> list[Turn]:
    """One voice from before the shot to its end, with pauses between its sentences; arguments as of `heard_turns`."""
    visible = 1 - (1 - on_screen) * OFF_SCREEN_FACTORS[min(heads, len(OFF_SCREEN_FACTORS)) - 1]
    head = int(rng.integers(heads)) if rng.random() < visible else OFF_SCREEN
    turns, time_s = [], -rng.uniform(0, 2.5)
    while time_s < seconds:
        turns.append((time_s, time_s + rng.uniform(*SENTENCES_S), head))
        time_s = turns[-1][1] + rng.uniform(*PAUSE_S)
    return turns


def added_turns(rng: np.random.Generator, turns: Sequence[Turn], heads: int, conditions: Conditions) -> list[Turn]:
    """What is said over the turns of a shot: back-channels and, if people talk at once in it, whole turns and
    interruptions; nobody talks over himself.

    Args:
        rng: random generator.
        turns: of the shot, in order.
        heads: in the shot.
        conditions: how often.
    """
    added = []
    at_once = rng.random() < conditions.together
    for number, (start_s, end_s, head) in enumerate(turns):
        others = [other for other in range(heads) if other != head]
        if not others:
            continue
        for _ in range(rng.poisson(conditions.back_channels * (end_s - start_s))):
            begin_s = rng.uniform(start_s, end_s)
            added.append((begin_s, begin_s + rng.uniform(*BACK_CHANNEL_S), int(rng.choice(others))))
        if at_once and rng.random() < 0.5:
            begin_s = rng.uniform(start_s, end_s)
            added.append((begin_s, begin_s + rng.uniform(*TURN_S), int(rng.choice(others))))
        if at_once and number + 1 < len(turns) and rng.random() < conditions.interruptions:
            following = turns[number + 1]
            if following[2] not in (head, OFF_SCREEN):
                added.append((end_s - rng.uniform(*OVERLAP_S), following[0], following[2]))
    return _without_own_overlap(turns, added)


def mimed_turns(
    rng: np.random.Generator,
    seconds: float,
    heard: Sequence[tuple[float, float]],
    own: Sequence[tuple[float, float]],
    conditions: Conditions,
) -> list[tuple[float, float]]:
    """Turns of unheard speech of one head: in the silences between heard turns, and beside others' turns.

    Args:
        rng: random generator.
        seconds: length of the shot.
        heard: all heard turns of the shot, in order of their starts.
        own: those of this head, during which and shortly around which it does not mime.
        conditions: how often.
    """
    if rng.random() < drawn(rng, conditions.still):
        return []
    ends = [0.0, *itertools.accumulate((end for _, end in heard), max)]
    starts = [*(start for start, _ in heard), seconds]
    silences = [(a, b) for a, b in zip(ends, starts, strict=True) if b - a >= SILENCE_S[0]]
    in_silence, in_turns = drawn(rng, conditions.mimed_silence), drawn(rng, conditions.mimed_turn)
    mimed = [silence for silence in silences if rng.random() < in_silence]
    # They begin before the audio ends and end after it begins: for a short time they look like speech that is heard.
    turns = [(a - rng.uniform(*SPILL_S), b + rng.uniform(*SPILL_S)) for a, b in mimed]
    turns += [turn for turn in heard if rng.random() < in_turns]
    for start_s, end_s in own:
        apart = [(a, min(b, start_s - REST_S)) for a, b in turns] + [(max(a, end_s + REST_S), b) for a, b in turns]
        turns = [(a, b) for a, b in apart if b - a > 0.5]
    return _merged(turns)


def _without_own_overlap(turns: Sequence[Turn], added: Sequence[Turn]) -> list[Turn]:
    """The added turns that overlap none of the same head."""
    kept: list[Turn] = []
    for start_s, end_s, head in added:
        taken = [turn for turn in (*turns, *kept) if turn[2] == head and turn[0] < end_s and start_s < turn[1]]
        if not taken:
            kept.append((start_s, end_s, head))
    return kept


def _merged(turns: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of turns, in order."""
    union: list[tuple[float, float]] = []
    for start_s, end_s in sorted(turns):
        if union and start_s <= union[-1][1]:
            union[-1] = (union[-1][0], max(end_s, union[-1][1]))
        else:
            union.append((start_s, end_s))
    return union
