"""tracking.json in a run's folder: the run's ID in each tool, and how much of it the tool has."""

import json
import threading
from pathlib import Path
from typing import Any

from hairpin.reports.trackers.tracker import Written
from hairpin.system.files import write_atomically

NAME = "tracking.json"


class Kept:
    """The state that a run's folder holds about its trackers; shared by their threads.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()
        self._tools: dict[str, Any] = {}
        if self._path.exists():
            self._tools = json.loads(self._path.read_text(encoding="utf-8"))

    def identity(self, tool: str) -> str | None:
        """Return the run's ID in the tool; None: it has none yet."""
        found = self._tools.get(tool, {}).get("id")
        return None if found is None else str(found)

    def written(self, tool: str) -> Written | None:
        """Return how much of the run the tool has; None: unknown."""
        found = self._tools.get(tool)
        return Written(int(found["updates"]), int(found["others"])) if found else None

    def put(self, tool: str, identity: str, written: Written) -> None:
        """Store both for a tool."""
        with self._lock:
            self._tools[tool] = {
                "id": identity,
                "updates": written.updates,
                "others": written.others,
            }
            write_atomically(self._path, (json.dumps(self._tools, indent=1) + "\n").encode())
