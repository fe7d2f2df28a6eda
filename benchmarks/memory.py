"""What a loaded model costs: resident memory after loading less before, over the bytes of its parameters.

Each type in a fresh process, which has imported everything before the first reading. `anonymous` is the process's own
memory, `file` are pages of mapped files, which the system can take back. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from facts import machine
from models import MODELS, folder_of
from safetensors import safe_open

from onepass import Encoder
from onepass.engines.native import compute_threads

BYTES = {"float32": 4, "bfloat16": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="bert-large")
    parser.add_argument("--dtype", choices=BYTES, help="only this one, in this process")
    arguments = parser.parse_args()
    folder = folder_of(arguments.model)
    if arguments.dtype:
        click.echo(json.dumps(loaded(folder, arguments.dtype)))
        return
    found = [in_a_fresh_process(arguments.model, dtype) for dtype in BYTES]
    for facts in found:
        click.echo(
            f"{facts['dtype']:<9} {facts['ratio']:.3f} times {facts['parameter_mb']:,.0f} MB of parameters: "
            f"{facts['anonymous_mb']:,.0f} MB anonymous, {facts['file_mb']:,.0f} MB of files; "
            f"most while loading {facts['most_mb']:,.0f} MB; loaded in {facts['load_seconds']:.1f} s"
        )
    facts = {"benchmark": "memory", "model": arguments.model, "machine": machine(compute_threads()), "results": found}
    click.echo(json.dumps(facts))


def in_a_fresh_process(model: str, dtype: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--model", model, "--dtype", dtype]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return dict(answer)


def loaded(folder: Path, dtype: str) -> dict[str, Any]:
    before = resident()
    encoder = Encoder(folder, dtype=dtype, engine="native")
    after = resident()
    info = encoder.info()
    parameters = parameter_count(folder) * BYTES[dtype] / 2**20
    more = {name: after[name] - before[name] for name in after}
    return {
        "dtype": dtype,
        "parameter_mb": round(parameters, 1),
        "ratio": round(more["VmRSS"] / parameters, 4),
        "resident_mb": round(more["VmRSS"], 1),
        "anonymous_mb": round(more["RssAnon"], 1),
        "file_mb": round(more["RssFile"], 1),
        "most_mb": round(after["VmHWM"] - before["VmRSS"], 1),
        "weight_mb": round(info["engine"]["weight_bytes"] / 2**20, 1),
        "load_seconds": info["load_seconds"],
    }


def parameter_count(folder: Path) -> int:
    with safe_open(folder / "model.safetensors", "numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def resident() -> dict[str, float]:
    """MB, by the system's names."""
    lines = Path("/proc/self/status").read_text().splitlines()
    wanted = ("VmRSS", "RssAnon", "RssFile", "VmHWM")
    return {
        name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines) if name in wanted
    }


if __name__ == "__main__":
    main()
