"""The kernels by themselves, beside plain loops in C++: native/check holds the programs, this builds and runs them."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from onepass.engines.native import instruction_sets

REPOSITORY = Path(__file__).parents[1]
CHECK = REPOSITORY / "native" / "check"


def compiler() -> str | None:
    """The one that built the package, where that was here."""
    for cache in REPOSITORY.glob("build/*/CMakeCache.txt"):
        for line in cache.read_text().splitlines():
            name, _, path = line.partition("=")
            if name.startswith("CMAKE_CXX_COMPILER:") and Path(path).exists():
                return path
    return shutil.which("c++")


pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"),
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make"),
]


def make(target: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(CHECK), target, f"OUT={out}", f"CXX={compiler()}", "FEW=--few", "-j2"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels_check")


def test_every_table_of_this_machine_agrees_with_plain_loops(out: Path) -> None:
    run = make("native", out)
    assert run.returncode == 0, run.stdout + run.stderr
    checked = re.findall(r"^(\w+)$", run.stdout, flags=re.MULTILINE)
    assert checked == [name for name, obstacle in instruction_sets().items() if not obstacle]
    assert run.stdout.count("largest relative error") == 13 * len(checked)
    assert "MISSED" not in run.stdout


def test_a_table_that_cannot_run_is_named(out: Path) -> None:
    assert make("native", out).returncode == 0
    run = subprocess.run([out / "kernels_check", "sse9"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (2, "sse9: not built\n")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AMX is for x86-64")
@pytest.mark.skipif(
    bool(instruction_sets().get("avx512bf16", "not built")),
    reason=f"avx512bf16, which emulated tiles need: {instruction_sets().get('avx512bf16', 'not built')}",
)
def test_amx_agrees_with_plain_loops_on_emulated_tiles(out: Path) -> None:
    run = make("amx", out)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "emulated tiles: 0 misses" in run.stdout
    assert re.findall(r"^(\w+)$", run.stdout, flags=re.MULTILINE) == ["amx"]
