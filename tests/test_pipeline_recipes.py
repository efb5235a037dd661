"""What scripts/run_pipeline.py makes of the published recipes, and which stages follow from the encoder."""

import pandas as pd
import pytest

from scripts import run_pipeline
from scripts.run_pipeline import clip_recipe, cut_every, track_recipe


def test_whole_tracks_are_trained_for_fewer_epochs_over_which_the_rate_falls_as_far():
    recipe = track_recipe("light_asd", frames=100_000, faces=10_000)
    assert (recipe["epochs"], recipe["frames_per_batch"], recipe["optimizer"]) == (10, 500, "Adam")
    assert recipe["gamma"] ** 10 == pytest.approx(0.95**30, rel=1e-4)
    assert (recipe["temperature"], recipe["temperature_drop"]) == (1.3, 0.06)
    published = track_recipe("lr_asd", frames=10**9, faces=1000)
    assert (published["epochs"], published["gamma"], published["weight_decay"]) == (40, 0.95, 0.01)
    assert track_recipe("lr_asd", frames=1, faces=1000)["epochs"] == 1


def test_clips_fill_their_budget():
    recipe = clip_recipe(clips=16_000, tracks=100, crop_size=144)
    assert recipe["epochs"] * recipe["clips_per_entity"] * 100 == 16_000
    assert (recipe["step_size"], cut_every(1)) == (4, 1)


@pytest.mark.parametrize(
    ("backbone", "heads", "unit"),
    [("lr_asd", ["av", "video"], "frames"), ("resnet18_two_streams", ["av", "audio", "video"], "clips")],
)
def test_only_heads_that_the_encoder_has_are_evaluated(tmp_path, backbone, heads, unit):
    words = ["--videos", "videos", "--annotations", "annotations", "--out", str(tmp_path), "--backbone", backbone]
    arguments = run_pipeline.parse(words)
    rows = dict.fromkeys(("train", "val"), pd.DataFrame({"entity_id": ["a"] * 50 + ["b"] * 30}))
    config = run_pipeline.write_config(arguments, tmp_path, rows)
    stages = {stage.name: stage for stage in run_pipeline.learning(arguments, tmp_path, rows, config)}
    assert [name.split(", ")[1] for name in stages if name.startswith("STE_postprocessing")] == heads
    names = [word.name for word in stages["evaluate"].command if str(word).endswith(".csv")]
    assert ("STE_audio.csv" in names) == ("audio" in heads)
    assert names[-1] == "ASC.csv"
    assert stages["STE_train"].unit == unit


def test_another_encoder_is_refused(capsys):
    with pytest.raises(SystemExit):
        run_pipeline.parse(["--videos", "v", "--annotations", "a", "--out", "o", "--backbone", "asd"])
    assert "invalid choice: 'asd'" in capsys.readouterr().err
