"""The rules that keep the tree readable: imports point one way, names say what a file is about, importing is free."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import onepass

SOURCE = Path(onepass.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# Each part may import the ones to its right, and what stands in FREE.
ORDER = ["cli", "shell", "server", "encoder", "tasks", "schedule", "engines", "model"]
FREE = ["blocking", "errors", "settings", "observe"]
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "core", "misc"}
LARGEST_FILE = 400
LONGEST_FUNCTION = 60


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, also inside functions; `from a import b` counts as a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def parts_imported(path: Path) -> set[str]:
    known = {*ORDER, *FREE}
    return {name.split(".")[1] for name in imports(path) if name.startswith("onepass.")} & known


def test_every_part_is_in_the_order() -> None:
    assert {part_of(path) for path in FILES} - {"__init__"} == {*ORDER, *FREE}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        allowed = {"encoder", "errors"}
    elif part in FREE:
        allowed = {"errors"}
    else:
        allowed = {*ORDER[ORDER.index(part) :], *FREE}
        if part == "server":
            allowed -= {"shell"}
    assert parts_imported(path) <= allowed


@pytest.mark.parametrize("name", ["row", "scheduler"])
def test_the_scheduler_is_a_pure_data_structure(name: str) -> None:
    modules = {module.split(".")[0] for module in imports(SOURCE / "schedule" / f"{name}.py")}
    assert not modules & {"numpy", "asyncio", "threading", "time", "concurrent"}


def test_nothing_imports_pickle_or_torch() -> None:
    """But for one file, which hands pickled weights to torch's weights_only loader where torch happens to be.

    The torch engine's own files import torch, and engines/place.py asks it for GPUs; who imports those is tested below.
    """
    for path in FILES:
        allowed = {"torch", "pickle"} if path == SOURCE / "model" / "tensor_files.py" else set()
        if path.parent == SOURCE / "engines" and (path.stem.startswith("torch") or path.stem == "place"):
            allowed = {"torch"}
        tops = {module.split(".")[0] for module in imports(path)}
        assert not tops & {"torch", "transformers", "sentence_transformers", "pickle"} - allowed, path


def test_names_say_what_they_are_about() -> None:
    for path in FILES:
        assert not FORBIDDEN_NAMES & set(path.relative_to(SOURCE).with_suffix("").parts), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LARGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_no_file_has_unfinished_work_in_it() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "NotImplementedError" not in text, path
        assert "TODO" not in text, path
        assert "FIXME" not in text, path


def test_importing_onepass_starts_nothing_and_brings_no_torch() -> None:
    script = (
        "import sys, threading, os\n"
        "environ = dict(os.environ)\n"
        "import onepass\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert dict(os.environ) == environ\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'onnxruntime', 'pyarrow', 'starlette', 'uvicorn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_installing_onepass_brings_no_torch() -> None:
    """No dependency, and no dependency's dependency, is one of the large frameworks."""
    found: set[str] = set()
    waiting = ["onepass"]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needs = [Requirement(line) for line in importlib.metadata.requires(name) or []]
        except importlib.metadata.PackageNotFoundError:  # for another platform or Python
            continue
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    assert {"numpy", "tokenizers", "huggingface-hub"} <= found
    assert not found & {"torch", "transformers", "tensorflow", "jax", "onnxruntime", "scipy", "pyarrow"}


def test_all_names_what_is_exported() -> None:
    public = {name for name in vars(onepass) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(onepass, name)).__name__ == "module"}
    assert {*onepass.__all__} - {"__version__"} == public - modules
    assert onepass.__version__
