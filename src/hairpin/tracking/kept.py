"""tracking.json in a run's folder: which run it is in each tool, and how far the tool has it."""

import json
import threading
from pathlib import Path
from typing import Any

from hairpin.files import write_atomically
from hairpin.tracking.tracker import Written

NAME = "tracking.json"


class Kept:
    """What a run's folder knows of its trackers; shared by their threads.

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
        """Which run it is in the tool; None: it has none yet."""
        found = self._tools.get(tool, {}).get("id")
        return None if found is None else str(found)

    def written(self, tool: str) -> Written | None:
        """How far the tool has the run; None: nothing is known."""
        found = self._tools.get(tool)
        return Written(int(found["updates"]), int(found["others"])) if found else None

    def put(self, tool: str, identity: str, written: Written) -> None:
        """Keep both of a tool."""
        with self._lock:
            self._tools[tool] = {
                "id": identity,
                "updates": written.updates,
                "others": written.others,
            }
            write_atomically(self._path, (json.dumps(self._tools, indent=1) + "\n").encode())
