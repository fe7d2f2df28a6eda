"""How many threads of this machine are for computing; asked before it is known which engine will run."""

from __future__ import annotations

import os


def compute_threads() -> int:
    """Physical cores as the native engine counts them; every core that it may use where that engine is not built."""
    try:
        from onepass.engines.native import compute_threads as counted
    except ImportError:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return counted()
