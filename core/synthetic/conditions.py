"""What makes a synthetic scene harder than plain turns, and how often: numbers that each shot is drawn from."""

from dataclasses import dataclass, fields, replace

import numpy as np

from core.runtime.errors import UserError

Range = tuple[float, float]


@dataclass(frozen=True)
class Conditions:
    """How a set's scenes are composed. "Share" is a probability; a pair is a range drawn from evenly, once a shot.

    Attributes:
        lead_s: by how much a mouth moves ahead of what is heard of it, seconds. For syllables in sequence Schwartz and
            Savariaux (2014, doi.org/10.1371/journal.pcbi.1003743) measured -0.02 to 0.07.
        plain: share of videos that have plain turns throughout, and nothing of what follows.
        shot_s: length of a shot, seconds.
        heads: shares of shots with 1, 2, 3, ... heads; they are made to sum to 1.
        heard_on_screen: share of turns that belong to a visible head where there is one head; with more of them fewer
            turns are off screen (`turns.OFF_SCREEN_FACTORS`).
        monologues: share of shots in which one voice, of a head or off screen, goes on throughout.
        still: share of heads that never mime.
        mimed_silence: share of silences in which another head mimes.
        mimed_turn: share of somebody else's turns throughout which a head mimes.
        together: share of shots in which people talk at once; there half of the turns have a second one over them.
        back_channels: short utterances of visible heads during others' turns, a second.
        interruptions: share of turns that begin before the one before them ends, in shots where people talk at once.
        crosstalk: share of shots with talk from outside the frame, whatever else is heard.
        crosstalk_db: level of that talk, dB of the visible voices.
        voice_db: level of each voice, dB.
        gestures: laughing, singing, chewing and smiling mouths without a voice, a second and head.
        dubbed: share of shots whose mouths are out of step with the audio.
        dubbed_s: by how much, seconds to either side.
        music, noise, babble: share of videos with each throughout.
        snr_db: dB by which speech is louder than music, noise or babble.
        leaving: share of heads that leave the frame for a time, in shots with two or more.
        bad_boxes: share of heads whose boxes are too large, too small, beside the face or shaky.
        low_rate: share of shots whose frames are held, as in footage of few frames a second.
        rate_fps: how many of them a second differ.
    """

    lead_s: Range = (0.0, 0.0)
    plain: float = 0.0
    shot_s: Range = (3.0, 7.0)
    heads: tuple[float, ...] = (0.34, 0.4, 0.17, 0.09)
    heard_on_screen: Range = (0.8, 0.8)
    monologues: float = 0.0
    still: Range = (0.1, 0.1)
    mimed_silence: Range = (0.95, 0.95)
    mimed_turn: Range = (0.06, 0.06)
    together: float = 0.0
    back_channels: float = 0.0
    interruptions: float = 0.0
    crosstalk: float = 0.0
    crosstalk_db: Range = (-15.0, 0.0)
    voice_db: Range = (0.0, 0.0)
    gestures: float = 0.0
    dubbed: float = 0.0
    dubbed_s: Range = (0.04, 0.6)
    music: float = 0.0
    noise: float = 0.0
    babble: float = 0.0
    snr_db: Range = (0.0, 20.0)
    leaving: float = 0.0
    bad_boxes: float = 0.0
    low_rate: float = 0.0
    rate_fps: Range = (5.0, 15.0)

    @property
    def set_apart(self) -> dict[str, object]:
        """The values that are not those of plain turns."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def changed(self, changes: dict[str, object]) -> "Conditions":
        """With some values replaced.

        Args:
            changes: attribute -> a number, or a list of as many as the attribute has (of `heads`, 1 to 8).

        Raises:
            UserError: a name or a value is none of these.
        """
        known = {field.name: field.default for field in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise UserError(f"unknown condition {name!r}: choose one of {', '.join(known)}")
            if fault := _fault(name, value, known[name]):
                raise UserError(f"condition {name} = {value!r}: expected {fault}")
        return replace(
            self, **{name: tuple(v) if isinstance(v, list | tuple) else float(v) for name, v in changes.items()}
        )


PLAIN = Conditions()  # one voice at a time, mouths that mime
# What films, talk shows and calls have: nothing of it in most shots, each in some.
VARIED = Conditions(
    lead_s=(0.0, 0.08),
    plain=0.5,
    shot_s=(2.0, 12.0),
    heads=(0.25, 0.33, 0.2, 0.1, 0.05, 0.03, 0.02, 0.02),
    heard_on_screen=(0.4, 1.0),
    monologues=0.2,
    still=(0.0, 0.6),
    mimed_silence=(0.2, 1.0),
    mimed_turn=(0.0, 0.6),
    together=0.3,
    back_channels=0.08,
    interruptions=0.4,
    crosstalk=0.15,
    voice_db=(-8.0, 2.0),
    gestures=0.12,
    dubbed=0.12,
    music=0.2,
    noise=0.2,
    babble=0.12,
    leaving=0.15,
    bad_boxes=0.15,
    low_rate=0.12,
)
PRESETS = {"plain": PLAIN, "varied": VARIED}


def drawn(rng: np.random.Generator, values: Range) -> float:
    """A number of a range; the range's own one, without a draw, where both ends are equal."""
    low, high = values
    return low if low == high else float(rng.uniform(low, high))


def _fault(name: str, value: object, default: object) -> str | None:
    """What a value should be, where it is not."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    least, most = _limits(name)
    fine = all(isinstance(n, int | float) and not isinstance(n, bool) and least <= n <= most for n in numbers)
    fine &= isinstance(value, list | tuple) == isinstance(default, tuple)
    if name == "heads":
        return None if fine and 1 <= len(numbers) <= 8 and sum(numbers) > 0 else "the shares of 1 to 8 heads, 0 to 1"
    if isinstance(default, tuple):
        in_order = fine and len(numbers) == 2 and numbers[0] <= numbers[1]
        return None if in_order else f"two numbers from {least} to {most}, the smaller first"
    return None if fine else f"a number from {least} to {most}"


def _limits(name: str) -> tuple[float, float]:
    """The least and the largest number that a value may hold."""
    if name.endswith("_db"):
        return -100, 100
    if name.endswith("_fps") or name == "shot_s":
        return 1, 1000
    if name.endswith("_s"):
        return 0, 1000
    return 0, 5 if name in ("back_channels", "gestures") else 1
