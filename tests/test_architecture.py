"""Who may import whom, and what library code never does: read from the source, so that no import is needed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = sorted((ROOT / "core").rglob("*.py"))
SCRIPTS = sorted([*ROOT.glob("*.py"), *(ROOT / "data").glob("*.py")])
AVA_ASD = sorted((ROOT / "ava_asd").glob("*.py"))
MAX_LINES = 350

# Modules that know nothing of how a stage is run, and those that do; the first never import the second.
FOUNDATION = {"models", "clip_utils", "formats", "media", "evaluation", "runtime"}
STAGES = {"dataset", "optimization", "training", "inference", "settings"}
READS_CONFIG = {"core.settings"}
ENDS_THE_PROGRAM = {"core.runtime.errors"}
PRINTS = {
    ("core.runtime.errors", "wrapper"),
    ("core.runtime.parallel", "report"),
    ("core.settings", "device"),
    ("core.download.many", "report_missing"),
}
FILE_CALLS = {
    "open",
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
    "mkdir",
    "unlink",
    "savez",
    "save",
    "load",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in [*CORE, *AVA_ASD, *SCRIPTS]}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """The project's modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
    return names & (set(MODULES) | {"core", "ava_asd", "data", "scripts", "benchmarks"})


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """(innermost function or "", dotted name called) of every call in a file."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            yield function, ast.unparse(node.func)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(tree(path), "")


def room(module: str) -> str:
    """core.models.context -> models."""
    return module.split(".")[1] if "." in module else module


GRAPH = {name: imported(path) for name, path in MODULES.items()}
IN_CORE = sorted(module_name(path) for path in CORE)
IN_AVA_ASD = sorted(module_name(path) for path in AVA_ASD)


def test_the_files_are_found():
    assert {
        "core.formats.ava",
        "core.models",
        "core.models.two_stream",
        "data.extract_audio_tracks",
        "STE_train",
    } <= set(MODULES)
    assert "core.formats.ava" in GRAPH["ava_asd.tracks"]
    assert "core.runtime.files" in GRAPH["core.formats.ava"]
    assert "core.formats.ava" in GRAPH["data.augment_annotations"]
    assert ("report", "print") in list(calls(ROOT / "core" / "runtime" / "parallel.py"))


@pytest.mark.parametrize("module", IN_CORE)
def test_the_library_knows_nothing_of_the_scripts(module):
    assert all(name.split(".")[0] == "core" for name in GRAPH[module])


@pytest.mark.parametrize("module", IN_AVA_ASD)
def test_the_small_system_knows_itself_and_the_library_only(module):
    assert {name.split(".")[0] for name in GRAPH[module]} <= {"core", "ava_asd"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(IN_CORE) - set(IN_AVA_ASD)))
def test_scripts_know_the_library_only(module):
    assert all(name.split(".")[0] == "core" for name in GRAPH[module])


def test_only_the_settings_read_the_configuration():
    assert {module for module in MODULES if "core.config" in GRAPH[module]} == READS_CONFIG


def test_the_configuration_imports_nothing():
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree(ROOT / "core/config.py")))


def test_no_library_module_imports_the_settings():
    assert [module for module in IN_CORE if "core.settings" in GRAPH[module]] == []


@pytest.mark.parametrize("module", [name for name in IN_CORE if room(name) in FOUNDATION])
def test_the_foundation_does_not_import_the_stages(module):
    assert {room(name) for name in GRAPH[module]} & STAGES == set()


def test_there_are_no_import_circles():
    done, path = set(), []

    def walk(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for name in GRAPH.get(module, ()):
            if name != module:
                walk(name)
        done.add(path.pop())

    for module in sorted(MODULES):
        walk(module)


@pytest.mark.parametrize("module", [n for n in IN_CORE if room(n) == "models" and n != "core.models.weights"])
def test_networks_do_no_input_or_output(module):
    """Weights are read by core.models.weights, which gets a path and gives tensors."""
    allowed = {"models", "runtime"}
    assert {room(name) for name in GRAPH[module]} <= allowed
    called = {name for _, name in calls(MODULES[module])}
    assert {name for name in called if name.split(".")[-1] in FILE_CALLS} == set()


@pytest.mark.parametrize("module", IN_CORE)
def test_library_code_ends_no_program_and_prints_nothing(module):
    for function, name in calls(MODULES[module]):
        if name in {"sys.exit", "exit", "quit", "os._exit"}:
            assert module in ENDS_THE_PROGRAM, f"{module}.{function} calls {name}"
        if name in {"print", "pprint.pprint", "sys.stdout.write", "sys.stderr.write"}:
            assert (module, function) in PRINTS, f"{module}.{function} prints"


@pytest.mark.parametrize("module", IN_CORE)
def test_library_code_does_not_read_the_command_line(module):
    allowed = {"core.runtime.parallel", "core.settings"}  # options that several scripts share
    names = {ast.unparse(node) for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Attribute)}
    assert "sys.argv" not in names
    assert module in allowed or not any(name.startswith("argparse.") for name in names)


@pytest.mark.parametrize("path", [*CORE, *AVA_ASD], ids=lambda path: str(path.relative_to(ROOT)))
def test_library_files_stay_readable_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_file_says_what_it_is(module):
    if MODULES[module].name != "__init__.py":
        assert ast.get_docstring(tree(MODULES[module]))
