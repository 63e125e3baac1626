"""Isolate a run from PyTorch's process-wide settings, which a caller may have changed for other
work.

    torch.set_default_dtype, torch.set_default_device and `with torch.device(…)`, no_grad and
    inference_mode, an autocast around the call, anomaly detection
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
_DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def isolated() -> Iterator[None]:
    """Compute inside as in a new process, and leave everything as it was.

    Not for use inside hairpin's own `torch.no_grad`: it sets how tensors are made and products
    rounded, and turns gradients on.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if (dtype := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))  # the innermost decides
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_anomaly_enabled():  # it slows every pass, and is meant for the caller's own
            stack.enter_context(torch.autograd.set_detect_anomaly(mode=False))
        yield


def alone(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function compute without the caller's settings."""

    @wraps(function)
    def wrapper(*args: P.args, **named: P.kwargs) -> T:
        with isolated():
            return function(*args, **named)

    return wrapper


def isolated_iterator(pieces: Iterable[T]) -> Iterator[T]:
    """Yield another iterator's pieces, keeping the caller's settings out of the iterator only: they
    apply to the caller's work on a piece.
    """
    iterator = iter(pieces)
    while True:
        with isolated():
            try:
                piece = next(iterator)
            except StopIteration:
                return
        yield piece
