"""What makes drawn scenes harder: each condition does what is said of it, by measurement, and nothing else."""

import dataclasses
import functools
import hashlib
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from tiny import exit_status, refusal

from core.formats.ava import BOX_COLUMNS, LABEL_IDS
from core.runtime.errors import UserError
from core.synthetic.audio import SYLLABLE_DB, behind, contours, draw_voice, utter, voiced_audio
from core.synthetic.conditions import PLAIN, PRESETS, VARIED, Conditions
from core.synthetic.frames import render_frames
from core.synthetic.scenes import Scene, Track, annotation_rows, compose_scene
from core.synthetic.turns import added_turns, heard_turns
from scripts import make_synthetic_ava

SMALL, SECONDS, FPS = (320, 180), 10, 25.0
SPEAKING, SILENT, MIMED = (LABEL_IDS[name] for name in ("SPEAKING_AUDIBLE", "NOT_SPEAKING", "SPEAKING_NOT_AUDIBLE"))
TWO = (0.0, 1.0)  # heads


@functools.cache
def scene(number: int, **changes: object) -> Scene:
    return compose_scene(5, "train", number, SECONDS, FPS, SMALL, PLAIN.changed(changes))


def tracks(scenes: int = 4, **changes: object) -> list[Track]:
    return [track for number in range(scenes) for shot in scene(number, **changes).shots for track in shot.tracks]


def share(label: int, **changes: object) -> float:
    return float(np.mean(np.concatenate([track.labels == label for track in tracks(**changes)])))


def at_once(**changes: object) -> float:
    """Share of frames in which two heads or more are heard."""
    shots = [shot for number in range(4) for shot in scene(number, heads=TWO, **changes).shots]
    return float(np.mean(np.concatenate([sum(t.labels == SPEAKING for t in shot.tracks) >= 2 for shot in shots])))


def db(audio: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(audio.astype(np.float64) ** 2)))


# ---------------------------------------------------------------- plain


def test_plain_scenes_are_as_they_were():
    digest, loudness = hashlib.sha256(), []
    for number in range(3):
        plain = compose_scene(3, "train", number, 8, FPS, SMALL)
        digest.update(annotation_rows(plain).to_csv(index=False).encode())
        loudness.append(np.abs(plain.audio.astype(np.int64)).sum())
    assert digest.hexdigest() == "92d97b03e2cbaeeb30f5460a37c0f12ae90cbd711c2243c689b41f6316d990e1"
    np.testing.assert_allclose(loudness, [42116874, 77701509, 29169858], rtol=1e-4)


@pytest.mark.parametrize(
    "changes", [{"music": 1.0, "noise": 1.0, "babble": 1.0}, {"crosstalk": 1.0}, {"gestures": 1.0}, {"low_rate": 1.0}]
)
def test_what_is_beside_or_over_speech_leaves_the_labels_alone(changes):
    assert annotation_rows(scene(0, **changes)).equals(annotation_rows(scene(0)))


# ---------------------------------------------------------------- who speaks


def test_people_talk_at_once():
    assert at_once() == 0
    assert at_once(together=1.0, interruptions=0.0) > 0.05
    assert at_once(together=1.0, interruptions=1.0) > at_once(together=1.0, interruptions=0.0)
    assert at_once(together=0.0, interruptions=1.0) == 0
    assert at_once(back_channels=1.0) > 0.05


def test_nobody_talks_over_himself():
    rng, conditions = np.random.default_rng(0), PLAIN.changed({"together": 1, "back_channels": 2, "interruptions": 1})
    added = 0
    for _ in range(30):
        turns = heard_turns(rng, 10, 3, 0.8)
        more = added_turns(rng, turns, 3, conditions)
        assert all(0 <= head < 3 for *_, head in more)
        added += len(more)
        for head in range(3):
            own = sorted(turn[:2] for turn in [*turns, *more] if turn[2] == head)
            assert all(one[1] <= other[0] for one, other in itertools.pairwise(own))
    assert added > 300
    assert added_turns(rng, heard_turns(rng, 10, 1, 1.0), 1, conditions) == []


def test_back_channels_are_short():
    """Those over another head's turn: under a second, pauses closed."""
    for number in range(6):
        for shot in scene(number, heads=TWO, back_channels=0.5).shots:
            both = np.all([track.labels == SPEAKING for track in shot.tracks], axis=0)
            edges = np.flatnonzero(np.diff(np.concatenate([[0], both, [0]])))
            assert np.all(edges[1::2] - edges[::2] <= 1.3 * FPS)


@pytest.mark.parametrize(("name", "label"), [("mimed_silence", MIMED), ("mimed_turn", MIMED)])
def test_heads_mime_as_often_as_said(name, label):
    never = {"mimed_silence": [0, 0], "mimed_turn": [0, 0], "still": [0, 0]}
    assert share(label, **freeze(never)) == 0
    half, always = (share(label, **freeze(never | {name: [value, value]})) for value in (0.5, 1))
    assert 0.05 < half < always


def test_heads_that_are_still_never_mime():
    assert share(MIMED, still=(1, 1)) == 0


def test_voices_belong_to_visible_heads_as_often_as_said():
    only = {"heads": (1.0,), "mimed_silence": (0, 0), "mimed_turn": (0, 0)}
    assert share(SPEAKING, heard_on_screen=(0, 0), **only) == 0
    assert share(SPEAKING, heard_on_screen=(1, 1), **only) > share(SPEAKING, heard_on_screen=(0.5, 0.5), **only) > 0.1


def test_monologues_are_of_one_voice_without_long_silences():
    talking = {"monologues": 1.0, "still": (1, 1)}
    assert share(SPEAKING, heads=(1.0,), heard_on_screen=(1, 1), **talking) > 0.85
    assert share(SPEAKING, heads=(1.0,), heard_on_screen=(0, 0), **talking) == 0
    for number in range(4):
        for shot in scene(number, heads=TWO, **talking).shots:
            assert sum((track.labels == SPEAKING).any() for track in shot.tracks) <= 1


def freeze(changes: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}


# ---------------------------------------------------------------- what is heard


ONE_SHOT = {"shot_s": (20, 20), "heads": (1.0,)}


@pytest.mark.parametrize(
    ("background", "level"),
    [("music", "snr_db"), ("noise", "snr_db"), ("babble", "snr_db"), ("crosstalk", "crosstalk_db")],
)
def test_levels_are_in_db(background, level):
    """Of what is added to the audio: 12 dB apart where the level is; an SNR is higher where less is added."""
    clean = scene(1, **ONE_SHOT).audio.astype(np.float64)
    added = [
        scene(1, **ONE_SHOT, **{background: 1.0, level: (value, value)}).audio.astype(np.float64) - clean
        for value in (-3, 9)
    ]
    assert db(added[1]) - db(added[0]) == pytest.approx(-12 if level == "snr_db" else 12, abs=0.2)


def test_an_snr_is_of_the_mean_syllable():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16_000)
    assert -db(behind(np.zeros(16_000), noise / noise.std(), 5.0)) == pytest.approx(SYLLABLE_DB + 5, abs=1e-3)
    speech = []
    for _ in range(20):
        voice = draw_voice(rng)
        speech.append(voiced_audio(rng, voice, contours(utter(rng, voice, 0, 4), 4), 64_000))
    assert -db(np.concatenate(speech)) == pytest.approx(SYLLABLE_DB, abs=2)


def test_voices_are_quieter():
    loud, quiet = (scene(1, **ONE_SHOT, voice_db=(value, value)).audio.astype(np.float64) for value in (0, -20))
    silence = scene(1, **ONE_SHOT, voice_db=(-100, -100)).audio
    assert db(loud - silence) - db(quiet - silence) == pytest.approx(20, abs=0.2)


# ---------------------------------------------------------------- what is seen


def test_dubbed_mouths_are_out_of_step_by_what_is_said():
    base, dubbed = ({"still": (1, 1), "dubbed": value, "dubbed_s": (0.2, 0.2)} for value in (0.0, 1.0))
    assert np.array_equal(scene(0, **base).audio, scene(0, **dubbed).audio)
    found = []
    for before, after in zip(tracks(**base), tracks(**dubbed), strict=True):
        assert np.array_equal(before.labels, after.labels)
        if (before.labels == SPEAKING).sum() < 40:
            continue
        lags = np.arange(-12, 13)
        apart = [np.abs(np.roll(before.opening, lag) - after.opening)[12:-12].mean() for lag in lags]
        found.append(lags[np.argmin(apart)])
    assert set(found) == {-5, 5}


def test_mouths_move_ahead_of_what_is_heard_of_them():
    base, ahead = ({"still": (1, 1), "lead_s": (value, value)} for value in (0.0, 0.08))
    assert np.array_equal(scene(0, **base).audio, scene(0, **ahead).audio)
    for before, after in zip(tracks(**base), tracks(**ahead), strict=True):
        assert np.array_equal(before.labels, after.labels)
        if (before.labels == SPEAKING).sum() < 40:
            continue
        lags = np.arange(-5, 6)
        apart = [np.abs(np.roll(before.opening, lag) - after.opening)[5:-5].mean() for lag in lags]
        assert lags[np.argmin(apart)] == -2


def test_plain_videos_among_others_have_the_lead_too():
    changes = {"plain": 1.0, "lead_s": (0.08, 0.08), "gestures": 1.0}
    both = zip(tracks(lead_s=(0.08, 0.08)), tracks(**changes), strict=True)
    assert all(np.array_equal(one.opening, other.opening) for one, other in both)


def test_gestures_move_mouths_that_say_nothing():
    changed = np.zeros(2)
    for before, after in zip(tracks(), tracks(gestures=1.0), strict=True):
        silent = before.labels == SILENT
        assert np.array_equal(before.labels, after.labels)
        assert np.array_equal(before.opening[~silent], after.opening[~silent])
        assert (after.opening >= before.opening).all()
        assert after.opening.max() <= 1
        assert np.abs(after.width).max() <= 1
        changed += (after.opening - before.opening)[silent].sum(), silent.sum()
    assert changed[0] / changed[1] > 0.1


def test_who_leaves_comes_back_as_another_entity():
    changes = {"heads": TWO, "leaving": 1.0}
    for number in range(4):
        left, stayed = scene(number, **changes), scene(number, heads=TWO)
        rows = annotation_rows(left)
        shown = [track.shown for shot in left.shots for track in shot.tracks]
        assert len(rows) == sum(own.sum() for own in shown) < len(annotation_rows(stayed))
        assert rows["entity_id"].nunique() == sum((np.diff(np.r_[0, own.astype(int)]) == 1).sum() for own in shown)
        for _, own in rows.groupby("entity_id"):
            np.testing.assert_allclose(np.diff(own["frame_timestamp"].astype(float)), 1 / FPS, atol=1e-6)
    alone = tracks(heads=(1.0,), leaving=1.0)
    assert all(track.shown.all() for track in alone)


def test_a_head_that_has_left_is_not_drawn():
    left = compose_scene(5, "train", 0, 2, FPS, SMALL, PLAIN.changed({"heads": list(TWO), "leaving": 1}))
    there = [
        dataclasses.replace(
            shot, tracks=tuple(dataclasses.replace(t, shown=np.ones_like(t.shown)) for t in shot.tracks)
        )
        for shot in left.shots
    ]
    differing = [
        not np.array_equal(*frames)
        for frames in zip(
            render_frames(left), render_frames(dataclasses.replace(left, shots=tuple(there))), strict=True
        )
    ]
    gone = np.concatenate([~np.all([track.shown for track in shot.tracks], axis=0) for shot in left.shots])
    assert gone.any()
    assert differing == gone.tolist()


def test_bad_boxes_are_about_the_face_and_within_the_frame():
    sizes = []
    for before, after in zip(tracks(heads=TWO), tracks(heads=TWO, bad_boxes=1.0), strict=True):
        assert (after.boxes[:, :2] < after.boxes[:, 2:]).all()
        assert after.boxes.min() >= 0
        assert after.boxes.max() <= 1
        middle = (before.boxes[:, :2] + before.boxes[:, 2:]) / 2
        assert ((after.boxes[:, :2] < middle) & (middle < after.boxes[:, 2:])).all()
        sizes.append(np.ptp(after.boxes[:, 0::2], axis=1).mean() / np.ptp(before.boxes[:, 0::2], axis=1).mean())
    assert min(sizes) < 0.95
    assert max(sizes) > 1.2


def test_frames_of_a_low_rate_are_held():
    for before, after in zip(tracks(), tracks(low_rate=1.0, rate_fps=(5, 5)), strict=True):
        changes = np.flatnonzero(np.any(np.diff(after.pose, axis=0) != 0, axis=1)) + 1
        assert np.array_equal(changes, np.arange(5, len(after.pose), 5))
        held = np.arange(len(after.pose)) // 5 * 5
        for name in ("pose", "opening", "width", "lid", "gaze"):
            assert np.array_equal(getattr(after, name), getattr(before, name)[held])


@pytest.mark.parametrize("rate", [5.0, 7.3, 14.9, 24.0])
def test_no_frame_shows_what_is_yet_to_come(rate):
    for before, after in zip(tracks(2), tracks(2, low_rate=1.0, rate_fps=(rate, rate)), strict=True):
        x = before.pose[:, 0]
        shown = np.array([np.flatnonzero(x[: n + 1] == value)[-1] for n, value in enumerate(after.pose[:, 0])])
        assert (np.arange(len(x)) - shown).max() <= np.ceil(FPS / rate)
        assert len(np.unique(shown)) == pytest.approx(len(x) * rate / FPS, abs=2)


@pytest.mark.parametrize("heads", range(1, 9))
def test_heads_lie_apart_within_the_frame(heads):
    drawn = scene(0, heads=(0.0,) * (heads - 1) + (1.0,))
    for shot in drawn.shots:
        assert len(shot.tracks) == heads
        boxes = np.stack([track.boxes for track in shot.tracks])
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        assert (boxes[:, :, :2] < boxes[:, :, 2:]).all()
        assert (boxes[:-1, :, 2] < boxes[1:, :, 0] + 0.02).all()
        assert len({id(track.look) for track in shot.tracks}) == heads


def test_shots_are_as_long_as_said():
    frames = [shot.frames for number in range(8) for shot in scene(number, shot_s=(1, 2)).shots]
    assert 0.5 * FPS <= min(frames) <= 1.2 * FPS
    assert 1.8 * FPS <= max(frames) <= 2.5 * FPS


def test_varied_scenes_have_all_of_it():
    varied = VARIED.changed({"plain": 0})
    scenes = [compose_scene(0, "val", number, 15, FPS, SMALL, varied) for number in range(8)]
    shots = [shot for one in scenes for shot in one.shots]
    assert {len(shot.tracks) for shot in shots} >= {1, 2, 3, 4}
    assert any(not track.shown.all() for shot in shots for track in shot.tracks)
    assert any(sum(track.labels == SPEAKING for track in shot.tracks).max() > 1 for shot in shots)
    for one in scenes:
        rows = annotation_rows(one)
        boxes = rows[list(BOX_COLUMNS)].astype(float).to_numpy()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert len(one.audio) == 15 * 16_000
        assert not rows.duplicated(["entity_id", "frame_timestamp"]).any()


def test_a_share_of_the_videos_is_plain():
    """Those are the very ones that a set of plain turns has."""

    def rows(number: int, conditions: Conditions) -> pd.DataFrame:
        return annotation_rows(compose_scene(0, "train", number, 6, FPS, SMALL, conditions))

    half = VARIED.changed({"plain": 0.5})
    plain = [rows(number, half).equals(rows(number, PLAIN)) for number in range(16)]
    assert 4 <= sum(plain) <= 12
    assert rows(0, VARIED.changed({"plain": 1})).equals(rows(0, PLAIN))


# ---------------------------------------------------------------- values


def test_values_that_are_set_apart_are_kept():
    changed = VARIED.changed({"together": 1, "heads": [1, 0], "snr_db": [-10, 0]})
    assert (changed.together, changed.heads, changed.snr_db) == (1.0, (1, 0), (-10, 0))
    assert PLAIN.set_apart == {}
    assert Conditions(**changed.set_apart) == changed
    assert set(PRESETS) == {"plain", "varied"}


@pytest.mark.parametrize(
    ("name", "value", "facts"),
    [
        ("talking", 0.5, ["talking", "together", "snr_db"]),
        ("together", 1.5, ["0 to 1"]),
        ("together", -0.1, ["0 to 1"]),
        ("together", True, ["0 to 1"]),
        ("together", None, ["0 to 1"]),
        ("together", "0.5", ["0 to 1"]),
        ("together", [0.5], ["0 to 1"]),
        ("together", float("nan"), ["0 to 1"]),
        ("gestures", float("inf"), ["0 to 5"]),
        ("back_channels", 10**400, ["0 to 5"]),
        ("heads", 0.5, ["1 to 8"]),
        ("heads", [], ["1 to 8"]),
        ("heads", [0, 0], ["1 to 8"]),
        ("heads", [1] * 9, ["1 to 8"]),
        ("heads", [0.5, -0.5], ["1 to 8"]),
        ("shot_s", [0, 0], ["two numbers", "1"]),
        ("shot_s", [7, 3], ["smaller first"]),
        ("dubbed_s", [-1, 1], ["two numbers"]),
        ("snr_db", 10, ["two numbers"]),
        ("snr_db", [0, 10, 20], ["two numbers"]),
        ("snr_db", [-(10**5), 0], ["-100"]),
        ("still", [0, 1.5], ["0 to 1"]),
        ("rate_fps", [0, 10], ["two numbers"]),
        ("voice_db", {"a": 1}, ["two numbers"]),
    ],
)
def test_wrong_values_are_refused(name, value, facts):
    with pytest.raises(UserError) as refused:
        PLAIN.changed({name: value})
    message = str(refused.value)
    assert "\n" not in message
    assert all(fact in message for fact in [repr(name) if name == "talking" else name, *facts])


@pytest.mark.parametrize(
    ("option", "fact"),
    [
        ("together", "NAME=VALUE"),
        ("together=", "NAME=VALUE"),
        ("together=half", "NAME=VALUE"),
        ("together=2", "together = 2"),
        ("heads=[1,NaN]", "heads"),
        ("laughter=1", "gestures"),
    ],
)
def test_the_script_refuses_them(tmp_path, capsys, option, fact):
    assert fact in refusal(capsys, make_synthetic_ava.main, tmp_path / "set", "--condition", option)
    assert not (tmp_path / "set").exists()


def test_a_set_keeps_its_conditions_and_goes_on_with_no_others(tmp_path, capsys):
    words = ["--videos", 1, "--val-videos", 1, "--seconds", 1, "--size", "160x90"]
    assert exit_status(make_synthetic_ava.main, tmp_path, *words, "--condition", "heads=[0,0,0,0,0,0,0,1]") == 0
    kept = json.loads((tmp_path / "synthetic.json").read_text())
    assert kept["conditions"] == {"heads": [0, 0, 0, 0, 0, 0, 0, 1]}
    rows = (tmp_path / "annotations" / "val").glob("*.csv")
    assert len({line.rsplit(",", 1)[1] for line in next(rows).read_text().splitlines()}) == 8
    assert "conditions" in refusal(capsys, make_synthetic_ava.main, tmp_path, *words)


def test_a_plain_set_of_an_earlier_version_is_gone_on_with(tmp_path):
    settings = make_synthetic_ava.Settings(seed=0, seconds=1.0, fps=FPS, size=SMALL, videos=1, val_videos=1)
    make_synthetic_ava.claim_folder(tmp_path, settings)
    path = tmp_path / "synthetic.json"
    kept = json.loads(path.read_text())
    assert kept.pop("conditions") == {}
    path.write_text(json.dumps(kept))
    make_synthetic_ava.claim_folder(tmp_path, settings)
