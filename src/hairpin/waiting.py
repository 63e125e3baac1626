"""How long threads wait for each other by spinning, set before PyTorch loads its OpenMP library.

Every product is shared by all threads, and at its end those that are done wait for the rest. The
library lets them spin for milliseconds: a thread that has lost its core to another program then
keeps the cores of those that wait for it busy with nothing, and training beside one busy process
falls to a tenth. Sleeping at once is no way out, since waking takes longer than many products of a
small model. So they spin for about as long as it takes to wake, some 50 microseconds, and sleep
then (docs/performance.md has the figures, `python -m benchmarks.shared_machine` measures them).
"""

import math
import os
from pathlib import Path

# A user who has set one of these has decided.
_DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# A turn of the loop is one PAUSE instruction: about 140 cycles on Intel's processors since Skylake,
# 40 to 65 on AMD's since Zen.
_SPINS = {"GenuineIntel": 1000, "AuthenticAMD": 3000}
_OTHER_SPINS = 3000
_LONG_SPINS = 20_000  # above it a busy neighbour costs more than half


def bound_spinning() -> None:
    """Let threads spin no longer than waking takes, unless the user's environment says otherwise.

    Child processes inherit it. In a process where torch is loaded already, it comes too late.
    """
    if not any(name in os.environ for name in _DECIDED):
        os.environ["GOMP_SPINCOUNT"] = _own_spins()


def spins_by_default() -> bool:
    """Tell whether threads wait as hairpin has said, and not as the user has."""
    others = [name for name in _DECIDED if name != "GOMP_SPINCOUNT" and name in os.environ]
    return not others and os.environ.get("GOMP_SPINCOUNT") == _own_spins()


def threads_are_decided() -> bool:
    """Tell whether the user's environment says how many threads compute."""
    return any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def waits_without_end() -> str | None:
    """Return the setting that makes threads spin for long, as `NAME=value`; None: there is none."""
    found = {name: os.environ.get(name, "") for name in _DECIDED}
    is_long = {
        "OMP_WAIT_POLICY": found["OMP_WAIT_POLICY"].strip().lower() == "active",
        "GOMP_SPINCOUNT": _number(found["GOMP_SPINCOUNT"]) > _LONG_SPINS,
        "KMP_BLOCKTIME": _number(found["KMP_BLOCKTIME"]) > 0,
    }
    return next((f"{name}={found[name]}" for name in _DECIDED if is_long[name]), None)


def _number(value: str) -> float:
    """Return the number that a variable holds; "infinite" is one, and what is none is 0."""
    if value.strip().lower() in {"infinite", "infinity"}:
        return math.inf
    try:
        return float(value)
    except ValueError:
        return 0.0


def _own_spins() -> str:
    """Return the number of turns that takes about as long as waking on this processor."""
    return str(_SPINS.get(_vendor(), _OTHER_SPINS))


def _vendor() -> str:
    """Return who made the processor, as Linux names it; "" where it does not say."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("vendor_id"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""
