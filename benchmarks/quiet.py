"""How much of the machine others used while something was timed: its figures count only where that is little."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = 0.1
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """seconds: of one call.  others: share of all processor time that other processes used meanwhile, 0 to 1."""

    seconds: float
    others: float


def watched(run: Callable[[], float]) -> Turn:
    """`run` gives the seconds of one of the calls it makes."""
    used, started = others_seconds(), time.perf_counter()
    seconds = run()
    elapsed = time.perf_counter() - started
    return Turn(seconds, max(0.0, others_seconds() - used) / (elapsed * (os.cpu_count() or 1)))


def others_seconds() -> float:
    """Processor seconds that everything but this process has used since the system started; 0 where it is unknown."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().partition("\n")[0].split()[1:]
    mine = os.times()
    return sum(int(fields[field]) for field in BUSY_FIELDS) / TICKS - mine.user - mine.system


def counted(turns: list[Turn]) -> list[float]:
    """Seconds of the turns during which others left the machine alone; of all turns if there was none."""
    return [turn.seconds for turn in turns if turn.others <= QUIET] or [turn.seconds for turn in turns]


def facts(turns: list[Turn]) -> dict[str, Any]:
    quiet = [turn for turn in turns if turn.others <= QUIET]
    return {
        "rounds": len(turns),
        "quiet_rounds": len(quiet),
        "others": round(sum(turn.others for turn in quiet or turns) / len(quiet or turns), 3),
    }
