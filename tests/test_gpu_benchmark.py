"""benchmarks/gpu.py runs to its end on a CPU and tiny shapes, so that minutes on a GPU are not lost to a typo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def test_every_part_runs(tmp_path: Path) -> None:
    folders = [f"--{name}={tmp_path / name}" for name in ("out", "scratch", "parity")]
    models = ["--models", "bert-base", "deberta-v3-base"]
    command = [sys.executable, str(SCRIPT), "--device=cpu", "--shape=tiny", *models, *folders]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["failed"], found["left_out"]) == ({}, []), ran.stdout
    assert found == json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert all(row["agrees"] for row in found["results"])
    engines = {"onepass", "onepass engine", "transformers", "transformers compiled", "sentence-transformers"}
    assert {row["engine"] for row in found["results"]} == engines
    assert all(facts["families"] == 4 and not facts["failed"] for facts in found["parity"]["worst"].values())
    assert found["parity"]["worst"]["float32"]["deviation"] < 1e-4
    judged = {goal["what"]: goal["found"] for goal in found["goals"]}
    assert judged["deberta-v3-base rerank200, times transformers"]["onepass engine"] > 0
    assert set(judged["idle share of the device"]) == {"bert-base"}
    assert (tmp_path / "out" / "gpu-trace-bert-base.svg").read_text().startswith("<svg")
