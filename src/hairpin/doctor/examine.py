"""The whole examination, in order. PyTorch is imported on the way, since that may be what fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

from hairpin.doctor import machine
from hairpin.doctor.findings import Finding
from hairpin.errors import one_line

_CHECKS = 45  # for the progress bar


def examine(
    device: str = "auto",
    *,
    precision: str = "auto",
    folder: Path | None = None,
    compiling: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """Examine the machine; takes seconds.

    Args:
        device: "auto", "cpu", "cuda" or "mps": the device whose numbers are compared.
        precision: the format in which matrices are multiplied; "auto": each that `auto` chooses
            from on this device.
        folder: where runs would be written; None: the working folder.
        compiling: also try compilation, which takes up to a minute.
        on_progress: called with (findings so far, estimated total).

    Raises:
        ConfigError: the machine has no such device.
    """
    found: list[Finding] = []
    for finding in _findings(device, precision, folder or Path(), compiling):
        found.append(finding)
        on_progress(len(found), max(len(found), _CHECKS))
    on_progress(len(found), len(found))
    return found


def _findings(device: str, precision: str, folder: Path, compiling: bool) -> Iterator[Finding]:
    yield from machine.check_versions()
    yield from machine.check_size()
    yield from machine.check_working_folder(folder)
    yield from machine.check_cache()
    yield from machine.check_terminal()
    yield from machine.check_extras()
    try:
        import torch  # noqa: F401 - only whether it can be
    except (ImportError, OSError) as error:
        line = one_line(next(iter(str(error).splitlines()), ""))
        text = f"cannot be imported ({line}); install it again: pip install torch"
        yield Finding("torch", "problem", text)
        return
    yield from _with_torch(device, precision, compiling)


def _with_torch(asked: str, precision: str, compiling: bool) -> Iterator[Finding]:
    from hairpin.doctor import devices
    from hairpin.doctor.numbers import check_numbers
    from hairpin.machine.numerics import choose_device, formats

    device = choose_device(asked)
    yield from devices.check_torch()
    yield from devices.check_devices()
    yield devices.check_processes()
    yield from devices.check_formats(device)
    yield from check_numbers(device, formats(device) if precision == "auto" else [precision])
    if compiling:
        yield devices.check_compiling(device)
