"""Configuration: merging, checking with all faults in one message, command line words."""

import argparse
import copy
import json
from pathlib import Path

import pytest
import torch

from core import config as default_config
from core import settings
from core.dataset import context_shape
from core.models import BACKBONES, TRACK_ENCODERS, lr_asd
from core.runtime import devices
from core.runtime.errors import UserError

STE = {"STE_inputs": ["csv_train_full", "models_out"], "STE_optimization_params": []}
FILLED = ["STE_inputs.csv_train_full=a.csv", "STE_inputs.models_out=runs"]


def config_file(folder: Path, text: str) -> Path:
    path = folder / "my_config.py"
    path.write_text(text)
    return path


def faults(path: Path | None, changes: list[str], dictionaries: dict = STE) -> list[str]:
    """The lines of the one message, without its heading."""
    with pytest.raises(UserError) as caught:
        settings.load(path, changes, dictionaries)
    heading, *lines = str(caught.value).splitlines()
    assert heading == "the configuration has faults:"
    assert all(line.startswith("  - ") for line in lines)
    return [line.removeprefix("  - ") for line in lines]


DEFAULTS = {name: value for name, value in vars(default_config).items() if isinstance(value, dict) and name[0] != "_"}


# ---------------------------------------------------------------- merging


def test_defaults_file_and_changes_in_this_order_change_no_dictionary(tmp_path):
    before = copy.deepcopy(DEFAULTS)
    path = config_file(
        tmp_path,
        "STE_inputs = {'csv_train_full': 'file.csv', 'models_out': 'file_runs'}\n"
        "STE_optimization_params = {'epochs': 7, 'batch_size': 5}\n",
    )
    config = settings.load(path, ["STE_optimization_params.epochs=9", "STE_inputs.models_out=mine"], STE)
    assert (config["STE_inputs"]["csv_train_full"], config["STE_inputs"]["models_out"]) == ("file.csv", "mine")
    params = config["STE_optimization_params"]
    assert (params["epochs"], params["batch_size"], params["learning_rate"]) == (9, 5, 3e-4)
    assert set(config.values) == set(STE)
    params["epochs"] = 1000
    assert before == DEFAULTS
    assert settings.load(None, FILLED, STE)["STE_optimization_params"]["epochs"] == 100


def test_the_published_numbers_are_the_defaults():
    ste, asc = default_config.STE_optimization_params, default_config.ASC_optimization_params
    names = ("optimizer", "learning_rate", "epochs", "step_size", "gamma", "batch_size")
    assert [ste[name] for name in names] == ["Adam", 3e-4, 100, 40, 0.1, 128]
    assert [asc[name] for name in names] == ["Adam", 3e-6, 15, 10, 0.1, 64]


def test_the_default_dictionaries_are_right_but_for_the_paths():
    dictionaries = {name: list(keys) if "inputs" in name else [] for name, keys in DEFAULTS.items()}
    lines = faults(None, [], dictionaries)
    assert len(lines) == sum(list(value.values()).count("...") for value in DEFAULTS.values())
    assert all("fill in a path" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("STE_optimization_params.epochs=3", 3),
        ("STE_optimization_params.learning_rate=1e-3", 1e-3),
        ("STE_optimization_params.crop_scale=(0.6, 0.9)", (0.6, 0.9)),
        ("STE_optimization_params.optimizer='SGD'", "SGD"),
        ("STE_optimization_params.optimizer=SGD", "SGD"),
        ("STE_optimization_params.compile=True", True),
        ("STE_inputs.models_out=runs/a=b.c", "runs/a=b.c"),
    ],
)
def test_values_of_set_are_literals_or_else_text(change, value):
    dictionary, key = change.split("=")[0].split(".")
    found = settings.load(None, [*FILLED, change], STE)[dictionary][key]
    assert found == value
    assert type(found) is type(value)


# ---------------------------------------------------------------- faults


def test_all_faults_stand_in_one_message(tmp_path):
    path = config_file(
        tmp_path,
        "STE_inputs = {'models_out': 'runs', 'csv_train': 'a.csv'}\n"
        "STE_optimisation_params = {'epochs': 7, 'gamma': 1}\n"
        "STE_optimization_params = {'epochs': 0, 'backbone': 'resnet19', 'learning_rate': '3e-4'}\n",
    )
    changes = ["STE_optimization_params.gama=1", "ASC.epochs=1", "epochs=3", "STE_optimization_params.jitter"]
    lines = faults(path, changes)
    expected = [  # where, what is wrong, what there is
        ("my_config.py", "'csv_train'", "csv_train_full, csv_val_full"),
        ("my_config.py", "STE_optimisation_params", "STE_inputs, STE_optimization_params"),
        ("--set STE_optimization_params.gama=1", "'gama'", "gamma"),
        ("--set ASC.epochs=1", "unknown dictionary ASC", "STE_inputs"),
        ("--set epochs=3", "DICT.KEY=VALUE"),
        ("--set STE_optimization_params.jitter", "DICT.KEY=VALUE"),
        ("STE_inputs['csv_train_full'] is '...'", "--config"),
        ("STE_optimization_params['backbone'] is 'resnet19'", "resnet18_two_streams"),
        ("STE_optimization_params['learning_rate'] is '3e-4'", "a number above 0"),
        ("STE_optimization_params['epochs'] is 0", "at least 1"),
    ]
    assert len(lines) == len(expected)
    for words in expected:
        assert sum(all(word in line for word in words) for line in lines) == 1, (words, lines)


def test_only_the_paths_that_a_stage_needs_must_be_filled_in():
    assert len(faults(None, FILLED, {"STE_inputs": list(DEFAULTS["STE_inputs"])})) == 5
    assert settings.load(None, FILLED, STE)["STE_inputs"]["video_dir"] == "..."


REFUSED = {
    "STE_inputs": ["models_out=", "models_out=3"],
    "STE_optimization_params": [
        *("epochs=1.5", "epochs=True", "threads=-1", "learning_rate=0", "learning_rate=True", "gamma=1.5", "jitter=2"),
        *("jitter_per=video", "crop_scale=(0.9, 0.5)", "crop_scale=0.5", "crop_scale=(0.5, 1.2)", "optimizer=Adamm"),
        *("optimizer=lr_scheduler", "optimizer=LBFGS", "optimizer=SparseAdam", "optimizer=3", "criterion=MSELoss"),
        *("criterion=CrossEntropy", "backbone=['resnet18_two_streams']", "backbone=asd", "pretrained=1", "seed=-1"),
        *("precision=float32", "compile=1", "crop_size=8", "frames_per_batch=1", "temperature=0", "mix_chance=2"),
        "mix_snr=(5, -5)",
    ],
    "STE_forward_params": ["precision=fp16", "weights=", "feature_type=float64", "format=npz"],
    "STE_postprocessing_params": ["median_window=4", "head=both"],
    "ASC_postprocessing_params": ["median_window=0"],
}


@pytest.mark.parametrize(("dictionary", "change"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_each_value_is_checked(dictionary, change):
    key, _, value = change.partition("=")
    paths = [key] if dictionary == "STE_inputs" else []
    (line,) = faults(None, [f"{dictionary}.{change}"], {dictionary: paths})
    assert line.startswith(f"{dictionary}[{key!r}] is ")
    assert value in line
    assert "expected" in line


def test_the_names_that_are_accepted_are_listed():
    changes = ("optimizer=Adamm", "criterion=NLLLoss", "backbone=asd")
    lines = faults(None, [*FILLED, *(f"STE_optimization_params.{change}" for change in changes)])
    accepted = [settings.OPTIMIZERS, settings.CRITERIA, [*BACKBONES, *TRACK_ENCODERS]]
    for key, names in zip(("optimizer", "criterion", "backbone"), accepted, strict=True):
        (line,) = (line for line in lines if f"[{key!r}]" in line)
        assert all(name in line for name in names)


@pytest.mark.parametrize(
    ("name", "text", "facts"),
    [
        ("no.py", None, ["no such file"]),
        ("broken.py", "STE_inputs = {'models_out': 1 / 0}\n", ["ZeroDivisionError", "division by zero"]),
        ("my_config.txt", "STE_inputs = {}\n", [".py"]),
    ],
)
def test_the_file_is_absent_broken_or_no_python(tmp_path, name, text, facts):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        settings.load(tmp_path / name, FILLED, STE)
    assert all(fact in str(caught.value) for fact in (str(tmp_path / name), *facts))


# ---------------------------------------------------------------- old configurations


PUBLISHED = Path(__file__).parent / "fixtures" / "published_config.py"


def test_the_published_configuration_is_that_of_the_defaults():
    """Its classes, functions and objects are those that the names stand for; only sizes of batches differ."""
    parts = [name for name in DEFAULTS if name.endswith("_params")]
    config = settings.load(PUBLISHED, [], {name: [] for name in parts}).plain()
    differing = {f"{part}.{key}": value for part in parts for key, value in config[part].items()}
    differing = {
        key: value for key, value in differing.items() if DEFAULTS[key.split(".")[0]][key.split(".")[1]] != value
    }
    assert differing == {
        "STE_optimization_params.batch_size": 64,
        "STE_forward_params.batch_size": 1,
        "ASC_forward_params.batch_size": 1,
        "ASC_forward_params.threads": 1,
    }


def test_objects_in_the_default_configuration_itself(monkeypatch):
    """Its dictionaries may be edited in the published way as well."""
    monkeypatch.setitem(default_config.STE_forward_params, "backbone", lr_asd)
    assert settings.load(None, [], {"STE_forward_params": []})["STE_forward_params"]["backbone"] == "lr_asd"


@pytest.mark.parametrize(
    ("old", "new", "change", "noted"),
    [
        ("", "", None, True),
        ('"batch_size": 64', '"batch_size": 128', None, False),
        ("", "", "STE_optimization_params.batch_size=64", False),
        ("networks.resnet18_two_streams,", '"resnet18_two_streams",', None, False),
    ],
)
def test_a_batch_size_that_the_published_script_overwrote_is_noted(tmp_path, capsys, old, new, change, noted):
    path = config_file(tmp_path, PUBLISHED.read_text().replace(old, new, 1))
    settings.load(path, [change] if change else [], {"STE_optimization_params": []})
    assert ("STE_optimization_params.batch_size=128" in capsys.readouterr().out) is noted
    settings.load(path, [], {"ASC_optimization_params": []})
    assert capsys.readouterr().out == ""


def test_objects_of_which_no_name_says_all(tmp_path):
    """They are used as they are; as text nobody takes them for something else."""
    path = config_file(
        tmp_path,
        "import functools\n"
        "from pathlib import Path\n"
        "from torch import nn, optim, tensor\n"
        "import core.models as models\n"
        "class Adam(optim.Adam):\n    pass\n"
        "STE_inputs = {'models_out': Path('runs') / 'a'}\n"
        "STE_optimization_params = {'criterion': nn.CrossEntropyLoss(tensor([1.0, 2.5]), label_smoothing=0.125)}\n"
        "STE_optimization_params['optimizer'] = functools.partial(optim.SGD, momentum=0.9)\n"
        "STE_optimization_params['backbone'] = functools.partial(models.resnet18_two_streams, num_classes=3)\n"
        "ASC_optimization_params = {'optimizer': Adam, 'criterion': nn.MultiMarginLoss}\n",
    )
    config = settings.load(path, FILLED[:1], {**STE, "ASC_optimization_params": []})
    ste, asc = config["STE_optimization_params"], config["ASC_optimization_params"]
    assert (ste["optimizer"].func, ste["backbone"].func) == (torch.optim.SGD, BACKBONES["resnet18_two_streams"])
    assert isinstance(ste["criterion"], torch.nn.CrossEntropyLoss)
    assert issubclass(asc["optimizer"], torch.optim.Adam)
    plain = json.loads(json.dumps(config.plain()))
    assert plain["STE_inputs"]["models_out"] == str(Path("runs") / "a")
    ste, asc = plain["STE_optimization_params"], plain["ASC_optimization_params"]
    assert ste["crop_scale"] == [0.5, 1.0]
    assert (asc["optimizer"], asc["criterion"], asc["epochs"]) == ("user_config.Adam", "MultiMarginLoss", 15)
    assert all(fact in ste["criterion"] for fact in ("CrossEntropyLoss", "label_smoothing=0.125", "2.5"))
    assert all(fact in ste["optimizer"] for fact in ("SGD", "momentum=0.9"))
    assert all(fact in ste["backbone"] for fact in ("resnet18_two_streams", "num_classes=3"))
    assert " at 0x" not in str(plain)  # the same in each process: runs can be resumed


@pytest.mark.parametrize("backbone", ["lambda weights_path, rgb_stack_size: None", "nn.Linear(1, 1)", "nn.Linear", "3"])
def test_a_backbone_that_cannot_be_called_as_one(tmp_path, backbone):
    """Such as one that loads its weights itself, as published configurations name one to forward with."""
    path = config_file(tmp_path, f"from torch import nn\nSTE_forward_params = {{'backbone': {backbone}}}\n")
    (line,) = faults(path, [], {"STE_forward_params": []})
    words = ("STE_forward_params['backbone']", "pretrained", "rgb_stack_size", "'weights'", "resnet18_two_streams")
    assert all(word in line for word in words)


@pytest.mark.parametrize(("weights", "asked"), [("best", 1), ("last", 1), ("STE.pth", 0)])
@pytest.mark.parametrize("stage", ["STE", "ASC"])
def test_models_out_is_asked_for_where_weights_are_looked_for_in_it(stage, weights, asked):
    needed = {f"{stage}_inputs": ["models_out"], f"{stage}_forward_params": []}
    change = f"{stage}_forward_params.weights={weights}"
    if asked:
        (line,) = faults(None, [change], needed)
        assert f"{stage}_inputs['models_out']" in line
        assert f"{stage}_forward_params.weights" in line
    else:
        assert settings.load(None, [change], needed)[f"{stage}_inputs"]["models_out"] == "..."


# ---------------------------------------------------------------- command line words


@pytest.mark.parametrize(
    ("words", "accepted"),
    [
        *((words, True) for words in ("1 1 1", "11 4 3")),
        *((words, False) for words in ("10 4 3", "11 4", "0 4 3", "-1 4 3", "11 0 3", "11 4 0", "x 4 3")),
    ],
)
def test_the_shape_of_a_context(words, accepted):
    """An odd number of time steps; at least one row to the next, and one speaker; none for whole shots."""
    parser = argparse.ArgumentParser()
    settings.add_context_arguments(parser)

    def shape(network: str) -> dict[str, int]:
        arguments = parser.parse_intermixed_args([*words.split(), "cpu"])
        assert arguments.cuda_device == "cpu"
        return context_shape(arguments.shape, network)

    if accepted:
        assert list(shape("ASC_Net").values()) == [*map(int, words.split())]
    else:
        with pytest.raises((SystemExit, UserError)):
            shape("ASC_Net")
    with pytest.raises((SystemExit, UserError)):
        shape("residual")


def test_a_network_of_whole_shots_takes_no_shape():
    assert context_shape([], "residual") == {}
    with pytest.raises(UserError, match="3 numbers"):
        context_shape([], "ASC_Net")


def test_splits():
    assert [settings.splits(choice) for choice in ("train", "val", "both")] == [["train"], ["val"], ["train", "val"]]


def test_cuda_devices(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.device("cpu") == torch.device("cpu")
    assert capsys.readouterr().out == ""
    assert devices.device("0") == torch.device("cpu")
    assert "cuda_device 0 becomes the CPU" in capsys.readouterr().out
    for word in ("cuda", "-1", "0,1", "gpu0", ""):
        with pytest.raises(UserError, match=f"cuda_device {word}: .*or cpu"):
            devices.device(word)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.device("1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"cuda_device 2: .*0 to 1"):
        devices.device("2")


def test_run_names():
    def name(*words: str) -> str:
        parser = argparse.ArgumentParser()
        settings.add_run_arguments(parser, "")
        return settings.run_name(parser.parse_args(words), "STE")

    assert name("--name", "mine", "--resume") == name("--name", "mine", "--update") == "mine"
    assert name().startswith("STE_2")
    for option in ("--resume", "--update"):
        with pytest.raises(UserError, match="--name"):
            name(option)
