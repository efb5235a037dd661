"""The plan of the house: who may import whom, and what library code never does; read from the source."""

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("core", "ava_asd", "data", "scripts", "benchmarks", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
} | {path.stem: path for path in sorted(ROOT.glob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
CORE = [name for name in FILES if name.split(".")[0] == "core"]
LIBRARY = [name for name in FILES if name.split(".")[0] in ("core", "ava_asd")]

# A module of core/ imports from its own folder or from a strictly lower rank.
RANKS = [
    {"runtime", "config", "clip_utils", "boxes"},
    {"formats", "models", "parallel"},
    {"media", "download", "evaluation", "inputs", "synthetic", "settings"},
    {"dataset", "track_dataset", "distributions", "people"},
    {"training", "inference"},
    {"optimization", "detection", "export"},
    {"outputs"},
    {"cutting", "live"},
]
RANK = {place: rank for rank, places in enumerate(RANKS) for place in places}
ROOT_MODULES = {"config", "settings", "dataset", "track_dataset", "optimization", "clip_utils", "boxes"}
MODULES_IN_A_FOLDER = 8
MODELS = "models"  # a network each, and what makes them fast: may be more
MAX_LINES = 350

PRINTS = {
    ("core.runtime.errors", "wrapper"),
    ("core.runtime.errors", "report_uncaught"),
    ("core.parallel.videos", "report"),
    ("core.training.peers", "end"),
    ("core.training.peers", "_end_without_store"),
    ("core.runtime.devices", "device_name"),
    ("core.settings", "_note_batch_size"),
    ("core.download.many", "report_missing"),
}
READS_ARGUMENTS = {"core.parallel.videos", "core.settings"}  # options that several scripts share
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


def imports(module: str) -> Iterator[tuple[str, str | None]]:
    """(module of the repository, name taken from it or None) for every import, wherever in the file."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in FILES:
                    yield full, None
                elif node.module in FILES:
                    yield node.module, alias.name


GRAPH = {module: {name for name, _ in imports(module)} for module in FILES}


def place(module: str) -> str:
    """The folder of a module of core/, or for one of its root the module itself: core.models.context -> models."""
    return module.split(".")[1]


def calls(module: str) -> Iterator[tuple[str, str]]:
    """(innermost function or "", dotted name called) of every call in a file."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            yield function, ast.unparse(node.func)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(TREES[module], "")


def test_the_files_are_found():
    assert {"core.formats.ava", "core.models", "STE_train", "data.extract_audio_tracks", "ava_asd.train"} <= set(FILES)
    assert "core.runtime.files" in GRAPH["core.formats.ava"]
    assert "core.formats.ava" in GRAPH["data.augment_annotations"]
    assert ("report", "print") in calls("core.parallel.videos")


def test_imports_go_down_the_ranks():
    up = [
        f"{module} imports {name}"
        for module in CORE
        for name in GRAPH[module]
        if "." in module and place(name) != place(module) and RANK[place(name)] >= RANK[place(module)]
    ]
    assert up == []


def test_folders_can_be_seen_at_a_glance():
    at_root = {path.stem for path in (ROOT / "core").glob("*.py")} - {"__init__"}
    folders = {path.name: path for path in (ROOT / "core").iterdir() if (path / "__init__.py").is_file()}
    sizes = {name: len(list(path.glob("*.py"))) - 1 for name, path in folders.items() if name != MODELS}
    assert at_root == ROOT_MODULES
    assert at_root | set(folders) == set(RANK)
    assert {name: size for name, size in sizes.items() if size > MODULES_IN_A_FOLDER} == {}


def test_nobody_takes_the_private_names_of_another_folder():
    taken = []
    for module in FILES:
        folder = module.rpartition(".")[0]
        names = [(name, private) for name, private in imports(module) if private and private.startswith("_")]
        bound = {name.rpartition(".")[2]: name for name, taken_name in imports(module) if taken_name is None}
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
                names += [(bound[node.value.id], node.attr)] * (node.attr[0] == "_" and node.attr[:2] != "__")
        taken += [f"{module}: {name}.{private}" for name, private in names if name.rpartition(".")[0] != folder]
    assert taken == []


def test_there_are_no_import_circles():
    done, path = set(), []

    def walk(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for name in GRAPH[module] - {module}:
                walk(name)
            done.add(path.pop())

    for module in FILES:
        walk(module)


def test_the_library_knows_nothing_of_the_scripts():
    used = {module.split(".")[0]: set() for module in FILES}
    for module in FILES:
        used[module.split(".")[0]] |= {name.split(".")[0] for name in GRAPH[module]}
    assert used.pop("core") <= {"core"}
    assert used.pop("ava_asd") <= {"core", "ava_asd"}
    used.pop("benchmarks")  # they time the scripts
    assert {script: names - {"core", "ava_asd"} for script, names in used.items() if names - {"core", "ava_asd"}} == {}


def test_data_and_scripts_hold_commands_only():
    for module, path in FILES.items():
        if module.split(".")[0] in ("data", "scripts") and path.name != "__init__.py":
            assert 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"), module


def test_only_the_settings_read_the_configuration_and_only_scripts_the_settings():
    read = {module for module in FILES if "core.config" in GRAPH[module]}
    assert {module for module in read if module.split(".")[0] != "benchmarks"} == {"core.settings"}
    assert GRAPH["core.config"] == set()
    assert [module for module in CORE if "core.settings" in GRAPH[module]] == []


def test_networks_do_no_input_or_output():
    """Weights are read by core.models.weights, which gets a path and gives tensors."""
    networks = [module for module in CORE if module.startswith("core.models.") and module != "core.models.weights"]
    found = [(module, name) for module in networks for _, name in calls(module) if name.split(".")[-1] in FILE_CALLS]
    assert found == []


def test_library_code_ends_no_program_prints_nothing_and_reads_no_command_line():
    faults = []
    for module in CORE:
        for function, name in calls(module):
            if name in {"sys.exit", "exit", "quit", "os._exit"} and module != "core.runtime.errors":
                faults.append(f"{module}.{function} calls {name}")
            if name in {"print", "pprint.pprint", "sys.stdout.write", "sys.stderr.write"}:
                faults += [f"{module}.{function} prints"] * ((module, function) not in PRINTS)
        names = {ast.unparse(node) for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)}
        read = {name for name in names if name == "sys.argv" or name.startswith("argparse.")}
        faults += [f"{module} uses {name}" for name in read if name == "sys.argv" or module not in READS_ARGUMENTS]
    assert faults == []


def test_library_files_stay_readable_in_one_sitting():
    lengths = {module: len(FILES[module].read_text(encoding="utf-8").splitlines()) for module in LIBRARY}
    assert {module: length for module, length in lengths.items() if length > MAX_LINES} == {}


def test_every_file_says_what_it_is():
    assert [module for module in FILES if not ast.get_docstring(TREES[module])] == []


def test_nothing_committed_holds_a_path_of_a_machine():
    paths = subprocess.run(
        ["git", "grep", "-nIE", r"(^|[^A-Za-z0-9_.])/(home|root|Users)/[a-z]", "--", "."],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert paths == ""


def test_what_is_installed_has_every_folder_of_the_library():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {f"core.{path.parent.name}" for path in (ROOT / "core").glob("*/__init__.py")}
    assert sorted(packages) == sorted({"core", "data", "ava_asd"} | folders)
