"""Limit on how long threads spin while waiting, set before PyTorch loads its OpenMP library.

Every product is shared by all threads, and at its end those that are done wait for the rest. The
library lets them spin for milliseconds: if a thread has lost its core to another program, the
waiting threads keep their cores busy with nothing, and training next to one busy process slows down
tenfold. Sleeping at once is no solution, since waking takes longer than many products of a small
model. So threads spin for about as long as waking takes, some 50 microseconds, and then sleep
(docs/performance.md has the figures, `python -m benchmarks.shared_machine` measures them).
"""

import math
import os
from pathlib import Path

# If the user has set one of these, hairpin changes none.
_DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# One iteration of the loop is one PAUSE instruction: about 140 cycles on Intel processors since
# Skylake, 40 to 65 on AMD's since Zen.
_SPINS = {"GenuineIntel": 1000, "AuthenticAMD": 3000}
_OTHER_SPINS = 3000
_LONG_SPINS = 20_000  # above this, a busy neighbour costs more than half of the speed


def limit_spinning() -> None:
    """Limit spinning to the time that waking takes, unless the user's environment says otherwise.

    Child processes inherit the limit. It has no effect once torch is loaded.
    """
    if not any(name in os.environ for name in _DECIDED):
        os.environ["GOMP_SPINCOUNT"] = _own_spins()


def spins_by_default() -> bool:
    """Return True if threads wait as set by hairpin, rather than by the user."""
    others = [name for name in _DECIDED if name != "GOMP_SPINCOUNT" and name in os.environ]
    return not others and os.environ.get("GOMP_SPINCOUNT") == _own_spins()


def threads_are_decided() -> bool:
    """Return True if the user's environment sets the number of threads."""
    return any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def spins_forever() -> str | None:
    """Return the setting that makes threads spin for long, as `NAME=value`; None: there is none."""
    found = {name: os.environ.get(name, "") for name in _DECIDED}
    is_long = {
        "OMP_WAIT_POLICY": found["OMP_WAIT_POLICY"].strip().lower() == "active",
        "GOMP_SPINCOUNT": _number(found["GOMP_SPINCOUNT"]) > _LONG_SPINS,
        "KMP_BLOCKTIME": _number(found["KMP_BLOCKTIME"]) > 0,
    }
    return next((f"{name}={found[name]}" for name in _DECIDED if is_long[name]), None)


def _number(value: str) -> float:
    """Return the number that a variable holds, including "infinite"; 0 for anything else."""
    if value.strip().lower() in {"infinite", "infinity"}:
        return math.inf
    try:
        return float(value)
    except ValueError:
        return 0.0


def _own_spins() -> str:
    """Return the number of iterations that take about as long as waking on this processor."""
    return str(_SPINS.get(_vendor(), _OTHER_SPINS))


def _vendor() -> str:
    """Return the processor's vendor, as named by Linux; "" if unknown."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("vendor_id"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""
