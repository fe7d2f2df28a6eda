"""The native engine and the machine: instruction sets, threads, forks, what the kernel files let the linker see."""

from __future__ import annotations

import ast
import gc
import inspect
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from random_models import MEAN, Shape, batch_of, build, read_all

import onepass
from onepass.engines import _native, build_engine
from onepass.engines.native import Native, choose_instruction_set, compute_threads, instruction_sets
from onepass.errors import BadSetting
from onepass.model.checkpoint import load_checkpoint

OBJECTS = sorted(Path(onepass.__file__).parents[2].glob("build/*/CMakeFiles/kernels.dir/native/*.o"))


def test_the_widest_instruction_set_is_chosen_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEPASS_ISA", raising=False)
    usable = [name for name, obstacle in instruction_sets().items() if not obstacle]
    model = build(Shape(layers=1))
    info = Native(model.spec, {"mean": MEAN}, model.weights).info()
    assert info["instruction_set"] == usable[0]
    assert info["instruction_set_reason"]
    assert info["compute_threads"] == compute_threads() >= 1
    assert info["weight_bytes"] >= sum(tensor.nbytes for tensor in model.weights.values())


def test_an_instruction_set_is_forced_by_argument_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEPASS_ISA", "portable")
    assert choose_instruction_set() == ("portable", "set by ONEPASS_ISA")
    monkeypatch.setenv("ONEPASS_ISA", "sse9")
    with pytest.raises(BadSetting, match=r"instruction set 'sse9' is unknown; choose .*portable"):
        choose_instruction_set()
    assert choose_instruction_set("portable") == ("portable", "asked")


def test_the_widest_of_those_that_run_here_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEPASS_ISA", raising=False)
    sets = {"amx": "", "avx512bf16": "", "portable": ""}
    monkeypatch.setattr("onepass.engines.native.instruction_sets", lambda: sets)
    assert choose_instruction_set() == ("amx", "the widest this machine has")
    sets["amx"] = "this processor lacks amx_tile"
    assert choose_instruction_set() == ("avx512bf16", "the widest this machine has")


def test_an_instruction_set_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {"avx512": "this processor lacks avx512f", "avx2": "", "portable": ""}
    monkeypatch.setattr("onepass.engines.native.instruction_sets", lambda: sets)
    with pytest.raises(
        BadSetting, match="'avx512' cannot be used: this processor lacks avx512f; choose avx2, portable"
    ):
        choose_instruction_set("avx512")
    monkeypatch.delenv("ONEPASS_ISA", raising=False)
    assert choose_instruction_set()[0] == "avx2"


@pytest.mark.parametrize("isa", [name for name, obstacle in instruction_sets().items() if not obstacle])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    tiny_embedder: Path, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEPASS_ISA", isa)
    engine, choices = build_engine(load_checkpoint(tiny_embedder))
    assert engine.info()["instruction_set"] == isa
    assert engine.dtype == choices["dtype"].value == ("bfloat16" if isa in ("amx", "avx512bf16") else "float32")
    assert choices["dtype"].reason.startswith(isa)
    assert build_engine(load_checkpoint(tiny_embedder), dtype="bfloat16")[0].dtype == "bfloat16"


@pytest.mark.skipif(not OBJECTS, reason="installed from a wheel: there are no object files to look at")
@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_kernel_files_show_the_linker_one_table_and_share_no_code(path: Path) -> None:
    """A weak symbol could be the copy of a function that the linker keeps for machines without the instruction set."""
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    kinds = {line.split()[-1]: line.split()[-2] for line in lines}
    weak = {name for name, kind in kinds.items() if kind in "WwVvu"}
    assert not weak
    isa = path.name.removeprefix("kernels_").split(".")[0]
    assert {name.lstrip("_") for name, kind in kinds.items() if kind.isupper() and kind != "U"} == {
        f"onepass_kernels_{isa}"
    }
    undefined = {name.lstrip("_") for name, kind in kinds.items() if kind == "U"}
    assert undefined <= {"memcpy", "memset", "log1pf", "GLOBAL_OFFSET_TABLE_"}


def test_the_weights_given_are_not_kept() -> None:
    model = build(Shape())
    watched = [weakref.ref(tensor) for tensor in model.weights.values()]
    engine = Native(model.spec, {"mean": MEAN}, model.weights)
    model.weights.clear()
    gc.collect()
    assert not [ref for ref in watched if ref() is not None]
    batch = batch_of([5])
    assert np.all(np.isfinite(engine.run(batch, [read_all(batch, "mean")])[0].values))


def run_python(code: str, **environment: str) -> str:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FORK = """
import os
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from random_models import MEAN, Shape, batch_of, build, read_all
from onepass.engines.native import Native

model = build(Shape(width=96, heads=6))
engine = Native(model.spec, {"mean": MEAN}, model.weights)
batch = batch_of([40, 30, 200, 1])

def run(cores):
    return engine.run(batch, [read_all(batch, "mean")], cores)[0].values

expected = run(2)
with ThreadPoolExecutor(2) as threads:          # forks while the workers are in use
    background = [threads.submit(run, 2) for _ in range(200)]
    children = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            same = all(np.array_equal(run(cores), expected) for cores in (1, 2, 2))
            os._exit(0 if same else 1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    same = all(np.array_equal(job.result(), expected) for job in background)
print(codes, same, np.array_equal(run(2), expected))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_computes_on_all_cores() -> None:
    assert run_python(FORK) == "[0, 0, 0, 0, 0] True True"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_compute_threads_follow_the_affinity_mask() -> None:
    code = """
import os
from onepass.engines.native import compute_threads
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(compute_threads())
"""
    assert run_python(code) == "1"


def test_the_stub_names_what_the_module_has() -> None:
    stub = ast.parse(Path(inspect.getfile(Native)).with_name("_native.pyi").read_text(encoding="utf-8"))
    named = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    present = {name: value for name, value in vars(_native).items() if not name.startswith("__")}
    assert set(named) == set(present)
    for name, value in present.items():
        node = named[name]
        if isinstance(node, ast.ClassDef) and inspect.isclass(value) and hasattr(value, "__members__"):
            words = {
                target.id
                for line in node.body
                if isinstance(line, ast.Assign)
                for target in line.targets
                if isinstance(target, ast.Name)
            }
            assert words == set(value.__members__)
