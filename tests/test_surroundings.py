"""What a caller has set in PyTorch does not reach a run, and stays as it was set."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import hairpin
from hairpin.machine.torch_settings import isolated, isolated_iterator
from helpers import text_file, tiny, updates_without_times


@contextmanager
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def on_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype": in_float64,
    "default device": lambda: on_device("meta"),
    "device block": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "anomaly": torch.autograd.detect_anomaly,
}


def surroundings() -> dict[str, Any]:
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device().type,
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "anomaly": torch.is_anomaly_enabled(),
    }


FRESH = surroundings()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, hairpin.Run]:
    folder = tmp_path_factory.mktemp("plain")
    text = text_file(folder)
    return text, trained(text, folder / "run")


def trained(text: Path, out: Path) -> hairpin.Run:
    settings = tiny(train__updates=6, **{"tokenizer.kind": "bpe", "tokenizer.vocabulary": 300})
    return hairpin.train(text, out=out, settings=settings, watcher=hairpin.Quiet())


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_run_is_the_same_whatever_is_set_around_it(
    tmp_path: Path, plain: tuple[Path, hairpin.Run], name: str
) -> None:
    text, run = plain
    with SURROUNDINGS[name]():
        before = surroundings()
        assert before != FRESH
        other = trained(text, tmp_path / "run")
        assert surroundings() == before
    assert updates_without_times(other.record()) == updates_without_times(run.record())
    files = ["model.safetensors", "optimizer.safetensors"]
    newest = [max(r.directory.checkpoints.iterdir()) for r in (run, other)]
    for file in files:
        assert (newest[0] / file).read_bytes() == (newest[1] / file).read_bytes()


def used(run: hairpin.Run, text: Path, out: Path) -> list[Any]:
    """Whatever a trained run computes for its user."""
    trained = run.trained()
    written = "".join(trained.write("the cat", tokens=12))
    fast = "".join(run.writer().write("the cat", tokens=12))
    exported = hairpin.export(run, out / "exported").path
    files = [file.read_bytes() for file in sorted(exported.glob("*.safetensors"))]
    back = hairpin.import_model(exported, out=out / "back").trained()
    return [written, fast, trained.measure([text]).loss, files, back.measure([text]).loss]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_trained_run_computes_the_same_whatever_is_set_around_it(
    tmp_path: Path, plain: tuple[Path, hairpin.Run], name: str
) -> None:
    text, run = plain
    expected = used(run, text, tmp_path / "plain")
    with SURROUNDINGS[name]():
        before = surroundings()
        assert used(run, text, tmp_path / "other") == expected
        assert surroundings() == before


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_an_iterator_computes_apart_from_whoever_takes_its_pieces() -> None:
    seen: list[dict[str, Any]] = []

    def pieces() -> Iterator[int]:
        for piece in range(3):
            seen.append(surroundings())
            yield piece

    with ExitStack() as stack:
        for name in ("default dtype", "device block", "no_grad", "autocast", "anomaly"):
            stack.enter_context(SURROUNDINGS[name]())
        before = surroundings()
        for _ in isolated_iterator(pieces()):
            assert surroundings() == before
    assert seen == [FRESH] * 3


def test_an_error_leaves_everything_as_it_was() -> None:
    with torch.no_grad(), in_float64():
        before = surroundings()
        with pytest.raises(ZeroDivisionError), isolated():
            assert surroundings() == FRESH
            raise ZeroDivisionError
        assert surroundings() == before
