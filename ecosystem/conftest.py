"""Tests against the real libraries: offline, each with a cache of its own."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # what both folders share: helpers
for _name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[_name] = "1"
os.environ["WANDB_MODE"] = "offline"


@pytest.fixture(autouse=True)
def hairpin_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own, and never the user's."""
    folder = tmp_path / "hairpin-cache"
    monkeypatch.setenv("HAIRPIN_CACHE", str(folder))
    return folder


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than runs of seconds."""
    from hairpin.run import Run

    monkeypatch.setattr(Run, "write_plots", lambda self: [])
