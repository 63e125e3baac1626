"""Weights & Biases: online, or kept in the run's folder until `wandb sync` sends it."""

import netrc
import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hairpin.reports.trackers.tracker import Point, Tracked, Tracker, Written

_EXIT_CODES = {"finished": 0, "interrupted": 0}
_ADDRESS = "https://api.wandb.ai"


class WeightsAndBiases(Tracker):
    """Logs rows with the update and the tokens trained on as their x axes.

    W&B cannot rewind a run. Rows that it has already are not sent again where a run repeats
    updates, which give the same numbers.
    """

    def open(self, run: Tracked) -> tuple[str, Written]:
        import wandb

        identity = run.identity or secrets.token_hex(4)
        mode = wandb_mode(run.asked.wandb_mode)
        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=run.asked.project,
            name=run.name,
            id=identity,
            # Offline, only a resumed run gets this: its rows are appended when it is sent.
            resume="allow" if mode == "online" or run.identity else None,
            dir=str(run.path),
            mode=mode,
            config=dict(run.config),
            allow_val_change=True,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                reinit="create_new",  # a run of the user's own stays the user's
                **_private(wandb.Settings),
            ),
        )
        if mode == "offline" and run.identity:
            run.notice(_sync_command(run.path, identity, wandb.__version__))
        for axis in ("update", "tokens"):
            self._run.define_metric(axis, hidden=True)
        self._run.define_metric("*", step_metric="update")
        return identity, run.written or Written()

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            row: dict[str, Any] = {"update": point.update, "tokens": point.tokens, **point.values}
            if point.text is not None:
                row["sample"] = self._wandb.Html(f"<pre>{escape(point.text)}</pre>", inject=False)
            self._run.log(row)

    def close(self, status: str, summary: Mapping[str, float]) -> None:
        self._run.summary.update({f"summary/{name}": value for name, value in summary.items()})
        self._run.summary.update({"status": status})
        self._run.finish(exit_code=_EXIT_CODES.get(status, 1))


def _sync_command(path: Path, identity: str, version: str) -> str:
    """Return the command that sends a run resumed offline, with a folder for each resume.

    Since version 0.30 `wandb sync` appends the rows of a resumed run, in the order of the times
    in the folders' names; before, it does so only with an option.
    """
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    append = "--append " if numbers < (0, 30) else ""
    folders = f"{shlex.quote(str(path / 'wandb'))}/offline-run-*-{identity}"
    return (
        "offline, and continued in a new folder; send all of the run's folders in one command: "
        f"wandb sync {append}{folders}"
    )


def _private(settings: Any) -> dict[str, Any]:
    """Return settings that keep the machine's name, its user and the command line out, as far as
    the version has them.
    """
    wanted = {"host": "unnamed", "x_disable_meta": True, "x_disable_machine_info": True}
    known = getattr(settings, "model_fields", {})
    return {name: value for name, value in wanted.items() if name in known}


def wandb_mode(asked: str | None) -> str:
    """Return "online" or "offline": as asked, else as WANDB_MODE says, else online if there is a
    key to log in with.
    """
    mode = asked or os.environ.get("WANDB_MODE")
    return mode or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _ADDRESS)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
