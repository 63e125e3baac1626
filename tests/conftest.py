import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
import torch
from hypothesis import settings

from hairpin.api import train
from hairpin.cli.main import main
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from helpers import Done, Hairpin, text_file, tiny

# A busy machine is slow, and that is no fault of the code. A commit passes or fails: properties are
# tried with the same examples every time, and with new ones in `make faults`.
settings.register_profile("hairpin", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("hairpin")

# A script's background ignores SIGINT and `nohup` SIGHUP, and what is started there leaves it so.
# Tests send both, and their children begin with what the system does at them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
for _number in _STOPS:
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# tiktoken names its files by the SHA-1 of their addresses; this is encoder.json.
_GPT2_FILE = "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"


def _test_data() -> Path | None:
    """A folder with tiktoken-cache/ and the-verdict.txt, where HAIRPIN_TEST_DATA names one."""
    named = os.environ.get("HAIRPIN_TEST_DATA")
    return Path(named) if named else None


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test's random numbers are its own, whichever tests this process ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def hairpin_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own, and never the user's."""
    folder = tmp_path / "hairpin-cache"
    monkeypatch.setenv("HAIRPIN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def gpt2_vocabulary() -> Iterator[Path]:
    """Point tiktoken at GPT-2's vocabulary; skipped where this machine does not have it."""
    data = _test_data()
    users = os.environ.get("TIKTOKEN_CACHE_DIR") or Path(tempfile.gettempdir(), "data-gym-cache")
    folder = data / "tiktoken-cache" if data else Path(users)
    if not (folder / _GPT2_FILE).is_file():
        pytest.skip(f"no GPT-2 vocabulary in {folder}: set HAIRPIN_TEST_DATA to a folder with it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def verdict_file() -> Path:
    """The Verdict, the text of the book; skipped where this machine does not have it."""
    data = _test_data()
    users = Path(platformdirs.user_cache_dir("hairpin"), "texts")
    path = (data or users) / "the-verdict.txt"
    if not path.is_file():
        pytest.skip(f"no {path}: set HAIRPIN_TEST_DATA to a folder with the-verdict.txt")
    return path


@pytest.fixture
def hairpin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Hairpin]:
    """The command line, in this process and in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in _STOPS}

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        assert isinstance(exit_.value.code, int)
        return Done(exit_.value.code, *capsys.readouterr())

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small trained model to start from; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("base")
    settings = tiny(
        model__width=32,
        model__context=48,
        train__updates=60,
        train__tokens_per_update=768,
        evaluate__every_updates=60,
        execution__micro_batch=16,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIRPIN_CACHE", str(folder / "cache"))
        patch.setattr(Run, "write_plots", lambda self: [])
        return train(text_file(folder), out=folder / "base", settings=settings, watcher=Quiet())


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than runs of seconds."""
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
