"""The documents, and the commands' own docstrings: every link and every command line is one that works."""

import ast
import contextlib
import importlib
import io
import itertools
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny import exit_status

from core import config
from core.models import ASC_Net, resnet18_two_streams

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README_LINES = 200
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMANDS = sorted(path for folder in (".", "data", "scripts", "benchmarks") for path in (ROOT / folder).glob("*.py"))
CONSOLE_SCRIPTS = {f"ava-{name}": f"ava_asd.{name}" for name in ("download", "extract", "subset", "train", "evaluate")}


def text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text(document)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines() -> list[tuple[str, list[str]]]:
    """(document, words) of every command that runs this repository's code, in blocks, in `code` and in docstrings."""
    lines = {}
    for document in DOCUMENTS:
        blocks, rest = FENCE.findall(text(document)), FENCE.sub("", text(document))
        lines[document] = [line for language, block in blocks if not language for line in joined(block)]
        lines[document] += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    for command in COMMANDS:
        lines[command] = [line.strip() for line in joined(ast.get_docstring(ast.parse(text(command))) or "")]
    found = []
    for document in lines:
        for line in lines[document]:
            words = shlex.split(line.replace("[cluster]", ""), comments=True) if line.count("'") % 2 == 0 else []
            if words[:1] in (["python"], ["torchrun"], ["bash"]) or (words[:1] and words[0] in CONSOLE_SCRIPTS):
                found.append((document.name, words))
    return found


def joined(block: str) -> list[str]:
    """The lines of a block, those that end in a backslash put together."""
    return re.sub(r"\\\n *", "", block).splitlines()


def program(words: list[str]) -> tuple[str, list[str]] | None:
    """Module (or path of a shell script) and arguments of a command line; None where it is Python's own."""
    if words[0] in CONSOLE_SCRIPTS:
        return CONSOLE_SCRIPTS[words[0]], words[1:]
    if words[0] == "python" and words[1:2] == ["-m"]:
        return words[2], words[3:]
    places = [index for index, word in enumerate(words) if word.endswith((".py", ".sh")) and index > 0]
    if not places:
        return None
    return words[places[0]], words[places[0] + 1 :]


@cache
def usage_of(module: str, *subcommand: str) -> str:
    """The first part of a program's help: its description may show options that it does not have."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        importlib.import_module(module).main([*subcommand, "--help"])
    assert stop.value.code == 0
    return out.getvalue().split("\n\n")[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text(document))):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        file = document if not path else document.parent / path
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_commands_are_what_the_programs_take():
    commands = command_lines()
    assert len(commands) > 40
    faults = []
    for document, words in commands:
        named = program(words)
        if named is None:
            continue
        name, arguments = named
        script = ROOT / name
        if name.endswith((".py", ".sh")) and not script.is_file():
            faults.append(f"{document}: no {name}")
        elif not name.endswith(".sh"):
            module = name.removesuffix(".py").replace("/", ".")
            known = f"{usage_of(module)} --help"  # which is -h in the usage
            if arguments and re.search(rf"{{[\w,]*\b{arguments[0]}\b[\w,]*}}", known):
                known += usage_of(module, arguments[0])
            options = [argument.split("=")[0] for argument in arguments if argument.startswith("--")]
            faults += [f"{document}: {name} {option}" for option in options if not re.search(rf"{option}\b", known)]
        keys = [argument for flag, argument in itertools.pairwise(arguments) if flag == "--set"]
        faults += [f"{document}: --set {key}" for key in keys if not set_is_known(key)]
    assert faults == []


def set_is_known(change: str) -> bool:
    dictionary, _, key = change.partition("=")[0].partition(".")
    return key in vars(config)[dictionary]


def test_the_lines_for_published_weights_run_as_they_stand(tiny_set, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("ava").symlink_to(tiny_set)
    torch.save(resnet18_two_streams().state_dict(), "STE.pth")
    torch.save(ASC_Net().state_dict(), "ASC.pth")
    section = text(ROOT / "docs" / "ava.md").partition("## The authors' files")[2]
    (_, settings), (_, commands) = FENCE.findall(section)
    Path("published.py").write_text(settings)
    for line in joined(commands):
        name, arguments = program(shlex.split(line))
        capsys.readouterr()
        main = importlib.import_module(name.removesuffix(".py").replace("/", ".")).main
        assert exit_status(main, *arguments) == 0, line
    assert " 77 " in capsys.readouterr().out  # evaluate.py


def test_python_in_the_documents_is_code_of_this_repository():
    blocks = [
        code for document in DOCUMENTS for language, code in FENCE.findall(text(document)) if language == "python"
    ]
    assert blocks
    for code in blocks:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
            if isinstance(node, ast.Assign) and node.targets[0].id.endswith("_params"):
                for key in ast.literal_eval(node.value):
                    assert set_is_known(f"{node.targets[0].id}.{key}")


PUBLISHED_NAMES = {
    "clip_utils": "generate_clip_meta",
    "custom_transforms": "video_train video_val",
    "dataset": "CachedAVSource AudioVideoDatasetAuxLosses AudioVideoDatasetAuxLossesForwardPhase ContextualDataset "
    "ASCFeaturesDataset ASCFeaturesDatasetForwardPhase",
    "io": "preprocessRGBData set_up_log_and_ws_out csv_to_list load_av_clip_from_metadata",
    "models": "model_urls conv3x3 conv1x1 BasicBlock Bottleneck SelfAttentionModule TwoStreamResNet ASC_Net "
    "resnet18_two_streams resnet18_two_streams_forward",
    "optimization": "optimize_av_losses optimize_asc",
    "util": "Logger configure_backbone configure_backbone_forward_phase load_train_video_set load_val_video_set",
}


def test_every_published_name_is_here_or_has_another():
    """In the tables of old names, all that stands under "here" exists."""
    names = {f"core.{module}.{name}" for module, line in PUBLISHED_NAMES.items() for name in line.split()}
    rows = [line.split("|")[1:3] for line in text(ROOT / "docs" / "differences.md").splitlines() if "|" in line]
    spans = [[re.findall(r"`(\w+(?:\.\w+)+)`", cell) for cell in row] for row in rows]
    replaced = {span for old, _ in spans for span in old}
    missing = {name for name in names if not exists(name)}
    assert missing <= replaced
    assert {name for name in replaced if name.startswith("core.")} <= names
    here = [span for _, new in spans for span in new if span.startswith(("core.", "torchvision."))]
    assert len(here) > 15
    assert [name for name in here if not exists(name) and not (ROOT / name).is_file()] == []


def exists(name: str) -> bool:
    """Whether a module of a dotted name can be imported and has the rest of it."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def test_the_architecture_lists_every_module():
    tree = text(ROOT / "docs" / "architecture.md")
    listed, folder = set(), ""
    for indent, name in re.findall(r"^( +)([\w/]+\.py|\w+/)(?: |$)", tree[tree.index("core/\n") :], re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            listed.add(name if len(indent) == 2 else folder + name)
    there = {path.relative_to(ROOT / "core").as_posix() for path in (ROOT / "core").rglob("*.py")}
    assert listed == {name for name in there if not name.endswith("__init__.py")}


def test_the_readme_is_short():
    assert len(text(ROOT / "README.md").splitlines()) <= README_LINES
