"""What the residual network learns, and the script that trains the shipped ones: its commands and what it ships."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import annotated_tracks, as_options, exit_status, refusal

import ASC_forward
import ASC_train
from benchmarks import context_study
from core.evaluation.metrics import average_precision
from core.formats import ava
from core.formats.context_logits import read_logits
from core.formats.feature_store import FeatureStore, VideoFeatures, write_features
from core.inference.residual_contexts import shots_of
from core.models import ResidualContext
from core.models.weights import write_torch_file
from core.runtime.checks import as_number
from core.runtime.errors import UserError
from core.runtime.files import fingerprint, write_json
from scripts import make_synthetic_ava, run_pipeline, train_context

ROOT = Path(__file__).resolve().parents[1]
FACES, STEPS = 3, 120


def conversation(video_id: str, seed: int) -> VideoFeatures:
    """Three faces that take turns, and an encoder that takes each mouth that moves for a voice.

    In each second one face is heard, a second one moves its mouth; the encoder scores both alike, a little surer of
    what is heard, on a scale of each film's own. With the audio of other times the one that is heard falls.
    """
    rng = np.random.default_rng(seed)
    heard = np.repeat(rng.integers(FACES, size=STEPS // 20), 20)
    moves = (heard + np.repeat(rng.integers(1, FACES, STEPS // 20), 20)) % FACES
    speaking = np.arange(FACES)[:, None] == heard
    moving = np.arange(FACES)[:, None] == moves
    noise = rng.standard_normal((4, FACES, STEPS))
    odds = 3.0 * speaking + 2.5 * moving + 1.5 * rng.standard_normal() + 2.0 * noise[0] - 2
    video = 3.0 * (speaking | moving) + 2.0 * noise[1]
    falls = 2.0 * speaking + 1.5 * noise[2:]
    tracks = [(video_id, f"{video_id}:{face}", 0, STEPS, ("NOT_SPEAKING",)) for face in range(FACES)]
    rows = annotated_tracks(tracks).assign(label_id=speaking.astype(np.int8).ravel())
    rows["label"] = np.where(speaking.ravel(), "SPEAKING_AUDIBLE", "NOT_SPEAKING")

    def logits(values: np.ndarray) -> np.ndarray:
        return np.stack((-values.ravel() / 2, values.ravel() / 2), axis=1).astype(np.float32)

    shifted = odds - np.sort(falls, axis=0)[::-1]
    correlation = np.tanh(0.3 * speaking + 0.5 * noise[3])
    in_step = np.stack([*shifted, correlation], axis=-1).reshape(-1, 3).astype(np.float32)
    features, heard = np.zeros((len(rows), 4), np.float16), np.zeros((len(rows), 13), np.float32)
    return VideoFeatures(rows, logits(odds), None, logits(video), features, in_step, heard)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory) -> Path:
    """`features/{train,val}` of such conversations, `models/a` trained on them, and its `logits/val`."""
    folder = tmp_path_factory.mktemp("learnt")
    for split, seeds in (("train", range(24)), ("val", range(100, 108))):
        for seed in seeds:
            write_features(folder / "features" / split, conversation(f"film{seed}", seed))
    paths = {f"features_{split}_full": folder / "features" / split for split in ava.SPLITS}
    recipe = {"epochs": 5, "step_size": 4, "batch_size": 4, "learning_rate": 0.005}
    options = ["--config", str(ROOT / "configs" / "residual_context.py")]
    options += as_options("ASC_optimization_params", **recipe)
    inputs = as_options("ASC_inputs", **paths, models_out=folder / "models")
    assert exit_status(ASC_train.main, "cpu", "--name", "a", *options, *inputs) == 0
    inputs += as_options("ASC_inputs_forward", **paths, logits_out=folder / "logits")
    assert exit_status(ASC_forward.main, "cpu", *inputs, *as_options("ASC_forward_params", weights="last")) == 0
    return folder


def test_a_short_training_learns_from_what_drawn_scenes_hold(learnt):
    log = pd.read_csv(learnt / "models" / "a" / "log.csv")
    store = FeatureStore(learnt / "features" / "val")
    before = average_precision(store.labels == 1, (store.logits[:, 1] - store.logits[:, 0]).astype(float))
    assert log["train_loss"].iloc[-1] < 0.85 * log["train_loss"].iloc[0]
    assert log["val_ap"].iloc[-1] > before + 0.1
    logits = read_logits(learnt / "logits" / "val")
    odds = (logits["logit1"] - logits["logit0"]).to_numpy(float)
    assert average_precision(store.labels == 1, odds) == pytest.approx(log["val_ap"].iloc[-1], abs=1e-3)


def test_who_is_heard_is_told_by_the_others_too(learnt):
    """Without them the same network does worse on the same faces."""
    network = ResidualContext().eval()
    network.load_state_dict(torch.load(learnt / "models" / "a" / "5.pth", weights_only=True))
    store = FeatureStore(learnt / "features" / "val")
    together, alone, labels = [], [], []
    for shot in shots_of(store):
        cues, present = torch.from_numpy(shot.cues), torch.from_numpy(shot.present)
        with torch.inference_mode():
            together.append(network(cues[None], present[None])[0])
            alone.append(network(cues[:, None], present[:, None])[:, 0])
        labels.append(shot.labels)
    labels = np.stack(labels).ravel() == 1
    precision = [
        average_precision(labels, torch.stack(odds).numpy().ravel().astype(float)) for odds in (together, alone)
    ]
    assert precision[0] > precision[1] + 0.02


def test_the_study_trains_a_network_without_each_ingredient(learnt, monkeypatch, capsys):
    some = ("as shipped", "one network", "logit alone", "without other faces", "in place of the encoder's logit")
    monkeypatch.setattr(context_study, "VARIANTS", {name: context_study.VARIANTS[name] for name in some})
    folders = [learnt / "features" / split for split in ava.SPLITS]
    assert exit_status(context_study.main, *folders, "--seeds", "1", "--epochs", "9") == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [line[0] for line in lines] == ["encoder", *some]
    mean = {line[0]: float(line[2]) for line in lines}
    store = FeatureStore(folders[1])
    encoder = average_precision(store.labels == 1, (store.logits[:, 1] - store.logits[:, 0]).astype(float))
    assert mean["encoder"] == pytest.approx(encoder, abs=6e-4)
    assert mean["as shipped"] > encoder + 0.05
    assert mean["one network"] > mean["logit alone"] + 0.02
    assert len(set(mean.values())) == len(mean)  # each is another network
    assert all(line[6] == line[2] for line in lines[1:])  # all times sound alike
    assert [line[3] for line in lines] == ["nan"] * len(lines)  # no scene has one face


# ---------------------------------------------------------------- the script


PRECISION = {"STE": 0.5, "ASC": 0.75}


def finished_run(folder: Path) -> None:
    """What `run_pipeline.py` leaves behind that is shipped: a run of two epochs, the first of them the best."""
    run = folder / "models" / "ASC"
    run.mkdir(parents=True)
    write_json(run / "settings.json", {"ASC_optimization_params": {"network": "residual", "epochs": 2}})
    for epoch in (1, 2):
        network = ResidualContext()
        torch.nn.init.constant_(network.members[0].scale, epoch)
        write_torch_file(run / f"{epoch}.pth", network.state_dict())
    (run / "best.pth").write_bytes((run / "1.pth").read_bytes())
    write_torch_file(run / "last.pt", {"epoch": 2})
    files = [{"predictions": f"{name}.csv", "average_precision": value} for name, value in PRECISION.items()]
    write_json(folder / "evaluation.json", {"files": files})


@pytest.fixture
def commands(tmp_path, monkeypatch) -> list[tuple[str, list[str]]]:
    """The commands that the script runs: the scenes are made in this process, the pipeline is pretended."""
    given = []

    def run(script: Path, *words: object) -> None:
        words = [str(word) for word in words]
        given.append((str(script), words))
        if str(script).endswith("make_synthetic_ava.py"):
            assert exit_status(make_synthetic_ava.main, *words, "--size", "160x90") == 0
        else:
            finished_run(run_pipeline.parse(words).out)

    (tmp_path / "encoder.model").write_bytes(b"weights")
    monkeypatch.setattr(train_context, "run", run)
    monkeypatch.setattr(train_context, "find_weights", lambda encoder, name: (tmp_path / "encoder.model", "box"))
    return given


def test_what_is_shipped_is_what_was_evaluated(tmp_path, commands):
    words = ["--videos", 1, "--seconds", 1, "--seed", 3, "--jobs", 1, "--to", tmp_path / "to"]
    assert exit_status(train_context.main, tmp_path / "work", *words) == 0
    assert [script for script, _ in commands] == ["scripts/make_synthetic_ava.py", *["scripts/run_pipeline.py"] * 2]
    made = json.loads((tmp_path / "work" / "scenes" / "synthetic.json").read_text())
    assert (made["videos"], made["val_videos"], made["seconds"], made["seed"]) == (1, 1, 1.0, 3)
    assert made["conditions"]["together"] == 0.3
    for encoder, (_, given) in zip(("light_asd", "lr_asd"), commands[1:], strict=True):
        arguments = run_pipeline.parse(given)
        assert (arguments.backbone, arguments.encoder_weights, arguments.network) == (encoder, "ava", "residual")
        assert arguments.no_shipped
        assert (arguments.videos, arguments.annotations) == tuple(
            tmp_path / "work" / "scenes" / name for name in ("videos", "annotations")
        )
        weights = tmp_path / "to" / f"{encoder}.pth"
        record = json.loads(weights.with_suffix(".json").read_text())
        assert torch.load(weights, weights_only=True)["members.0.scale"] == 2  # the last epoch, not the best
        assert record["sha256"] == fingerprint(weights)
        assert record["encoder_sha256"] == fingerprint(tmp_path / "encoder.model")
        assert record["drawn_val_average_precision"] == {"encoder": 0.5, "with_context": 0.75}
        assert (record["scenes"]["seed"], record["training"]["epochs"]) == (3, 2)


def test_one_encoder_can_be_chosen(tmp_path, commands):
    words = ["--videos", 1, "--seconds", 1, "--jobs", 1, "--to", tmp_path / "to", "--encoders", "lr_asd"]
    assert exit_status(train_context.main, tmp_path / "work", *words) == 0
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["lr_asd.json", "lr_asd.pth"]


def test_a_step_that_fails_ends_it(tmp_path, capsys):
    """Here the folder of scenes holds another set."""
    (tmp_path / "work" / "scenes" / "videos").mkdir(parents=True)
    message = refusal(capsys, train_context.main, tmp_path / "work", "--videos", 1, "--to", tmp_path / "to")
    assert "make_synthetic_ava.py failed with status 2" in message
    assert not (tmp_path / "to").exists()


# ---------------------------------------------------------------- the pipeline on given weights


def learning(tmp_path: Path, *options: object) -> tuple[list[str], dict, list]:
    words = ["--videos", "v", "--annotations", "a", "--out", str(tmp_path / "run"), *map(str, options)]
    arguments = run_pipeline.parse(words)
    (tmp_path / "run").mkdir(exist_ok=True)
    rows = dict.fromkeys(ava.SPLITS, pd.DataFrame({"entity_id": ["a"] * 50}))  # of one track
    config = run_pipeline.write_config(arguments, tmp_path / "run", rows)
    stages = list(run_pipeline.learning(arguments, tmp_path / "run", rows, config))
    return [stage.name for stage in stages], config, [stage.command for stage in stages]


@pytest.mark.parametrize("backbone", ["lr_asd", "resnet18_two_streams"])
def test_given_weights_are_encoded_with_and_only_their_context_is_trained(tmp_path, backbone):
    weights = tmp_path / "mine.pth"
    weights.write_bytes(b"weights")
    names, config, commands = learning(tmp_path, "--backbone", backbone, "--encoder-weights", weights)
    assert "STE_train" not in names
    assert config["STE_forward_params"]["weights"] == str(weights)
    assert config["ASC_optimization_params"]["network"] == "residual"
    [train] = [command for command in commands if "ASC_train.py" in map(str, command)]
    assert [str(word) for word in train][:2] == ["ASC_train.py", "cpu"]


def test_published_weights_name_their_encoder(capsys):
    words = ["--videos", "v", "--annotations", "a", "--out", "o", "--encoder-weights", "lr_asd/ava"]
    arguments = run_pipeline.parse(words)
    assert (arguments.backbone, arguments.encoder_weights, arguments.network) == ("lr_asd", "ava", "residual")
    message = refusal(capsys, run_pipeline.main, *words, "--backbone", "light_asd")
    assert all(word in message for word in ("lr_asd/ava", "light_asd"))


@pytest.mark.parametrize("fine_tune", [[], ["--fine-tune", "context"]])
def test_a_context_that_is_shipped_is_judged_beside_ones_own(tmp_path, monkeypatch, fine_tune):
    """And one's own begins with it where that is asked for."""
    weights, shipped = tmp_path / "mine.pth", tmp_path / "shipped.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(run_pipeline, "shipped_for", lambda encoder, sha256: shipped)
    names, config, commands = learning(tmp_path, "--backbone", "lr_asd", "--encoder-weights", weights, *fine_tune)
    params = config["ASC_optimization_params"]
    assert params["pretrained"] == (str(shipped) if fine_tune else False)
    assert (params["learning_rate"] < 2e-3) == bool(fine_tune)
    words = list(map(str, commands[names.index("ASC_forward, shipped")]))
    assert f"ASC_forward_params.weights={shipped}" in words
    evaluated = [Path(word) for word in commands[names.index("evaluate")] if str(word).endswith(".csv")]
    run = tmp_path / "run"
    assert [path.relative_to(run).as_posix() for path in evaluated[1:]] == [
        "predictions/val/STE_video.csv",
        "predictions/val/STE.csv",
        "shipped/predictions/val/ASC.csv",
        "predictions/val/ASC.csv",
    ]


def test_without_a_shipped_context_there_is_none_to_fine_tune(tmp_path, capsys):
    words = ["--videos", tmp_path, "--annotations", tmp_path, "--out", tmp_path / "run", "--fine-tune", "context"]
    assert "--encoder-weights" in refusal(capsys, run_pipeline.main, *words)
    assert not (tmp_path / "run").exists()


def test_an_encoder_is_trained_on_from_given_weights_and_both_are_judged(tmp_path, monkeypatch):
    weights, shipped = tmp_path / "mine.pth", tmp_path / "shipped.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(run_pipeline, "shipped_for", lambda encoder, sha256: shipped)
    given = ["--backbone", "light_asd", "--encoder-weights", weights, "--fine-tune", "encoder"]
    names, config, commands = learning(tmp_path, *given)
    assert config["STE_optimization_params"]["pretrained"] == str(weights)
    assert config["STE_optimization_params"]["learning_rate"] < 1e-3  # published, from random weights
    assert config["STE_forward_params"]["weights"] == "last"
    run = tmp_path / "run"
    words = list(map(str, commands[names.index("STE_forward, given weights")]))
    assert {f"STE_forward_params.weights={weights}", f"STE_inputs.features_out={run}/given/features"} <= {*words}
    words = list(map(str, commands[names.index("ASC_forward, shipped")]))
    assert f"ASC_inputs_forward.features_val_full={run}/given/features/val" in words  # of the encoder that it is for
    evaluated = [Path(word) for word in commands[names.index("evaluate")] if str(word).endswith(".csv")]
    assert [path.relative_to(run).as_posix() for path in evaluated[1:]] == [
        "given/predictions/val/STE.csv",
        "predictions/val/STE_video.csv",
        "predictions/val/STE.csv",
        "shipped/predictions/val/ASC.csv",
        "predictions/val/ASC.csv",
    ]


def test_in_folds_no_encoder_scores_a_video_that_it_was_trained_on(tmp_path):
    names, config, commands = learning(tmp_path, "--network", "residual", "--folds", 3)
    run, stages = tmp_path / "run", dict(zip(names, commands, strict=True))
    for fold in (1, 2, 3):
        folder = run / "folds" / f"{fold}_of_3"
        train, forward = (list(map(str, stages[f"{stage}, fold {fold}"])) for stage in ("STE_train", "STE_forward"))
        assert f"STE_inputs.csv_train_full={folder}/others.csv" in train
        assert f"STE_inputs.csv_train_full={folder}/own.csv" in forward
        assert {f"STE_inputs.models_out={folder}/models"} <= {*train} & {*forward}
        assert forward[forward.index("--split") + 1] == "train"
    own = list(map(str, stages["STE_forward"]))
    assert own[own.index("--split") + 1] == "val"
    assert config["ASC_inputs"]["features_train_full"] == f"{run}/folds/*_of_3/features/train"
    assert config["ASC_inputs"]["features_val_full"] == f"{run}/features/val"


def test_folds_divide_the_videos(tmp_path):
    rows = pd.DataFrame(dict.fromkeys(ava.AUGMENTED_COLUMNS, "0.1"), index=range(5))
    rows["video_id"], rows["entity_id"] = list("abcab"), list("uvwuv")
    folders = [tmp_path / "1", tmp_path / "2"]
    run_pipeline.write_folds(folders, rows)
    videos = [
        {name: sorted(set(pd.read_csv(folder / f"{name}.csv")["video_id"])) for name in ("own", "others")}
        for folder in folders
    ]
    assert videos == [{"own": ["a", "c"], "others": ["b"]}, {"own": ["b"], "others": ["a", "c"]}]
    with pytest.raises(UserError, match="3 videos"):
        run_pipeline.write_folds(folders * 2, rows)


@pytest.mark.parametrize(
    "options",
    [
        ["--folds", 2],  # the published network reads features
        ["--folds", 2, "--backbone", "light_asd", "--encoder-weights", "WEIGHTS"],  # no encoder is trained
        ["--fine-tune", "encoder"],
        ["--fine-tune", "encoder", "--encoder-weights", "WEIGHTS"],  # of clips
    ],
)
def test_trainings_that_cannot_be_are_refused_before_any_work(tmp_path, capsys, options):
    (tmp_path / "mine.pth").write_bytes(b"weights")
    options = [tmp_path / "mine.pth" if word == "WEIGHTS" else word for word in options]
    words = ["--videos", tmp_path, "--annotations", tmp_path, "--out", tmp_path / "run", *options]
    assert str(options[0]) in refusal(capsys, run_pipeline.main, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("network", "shape"), [("ASC_Net", 3), ("residual", 0)])
def test_the_context_network_can_be_chosen(tmp_path, network, shape):
    names, config, commands = learning(tmp_path, "--backbone", "lr_asd", "--network", network)
    assert "STE_train" in names
    assert config["ASC_optimization_params"]["network"] == network
    for script in ("ASC_train.py", "ASC_forward.py"):
        [words] = [list(map(str, command)) for command in commands if script in map(str, command)]
        assert words.index("cpu") - words.index(script) - 1 == shape
        assert all(as_number(word) for word in words[1 : 1 + shape])


@pytest.mark.parametrize(("backbone", "weights"), [("lr_asd", "absent.pth"), ("resnet18_two_streams", "ava")])
def test_weights_that_there_are_not_are_refused_before_any_work(tmp_path, capsys, backbone, weights):
    words = ["--videos", tmp_path, "--annotations", tmp_path, "--out", tmp_path / "run", "--backbone", backbone]
    message = refusal(capsys, run_pipeline.main, *words, "--encoder-weights", weights)
    assert weights in message
    assert backbone in message
    assert not (tmp_path / "run").exists()


def test_weights_of_another_crop_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_pipeline, "find_weights", lambda encoder, name: (tmp_path / name, "lower_face"))
    with pytest.raises(UserError, match=r"talkset.*lower_face"):
        run_pipeline.encoder_weights("light_asd", "talkset")
