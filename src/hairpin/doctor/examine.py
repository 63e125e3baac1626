"""The whole examination, in order. PyTorch is imported on the way, since that may be what fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

from hairpin.doctor import machine
from hairpin.doctor.findings import Finding
from hairpin.errors import one_line

_FINDINGS_ABOUT = 45  # for the progress bar


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
        on_progress(len(found), max(len(found), _FINDINGS_ABOUT))
    on_progress(len(found), len(found))
    return found


def _findings(device: str, precision: str, folder: Path, compiling: bool) -> Iterator[Finding]:
    yield from machine.look_at_versions()
    yield from machine.look_at_size()
    yield from machine.look_at_working_folder(folder)
    yield from machine.look_at_cache()
    yield from machine.look_at_terminal()
    yield from machine.look_at_extras()
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
    from hairpin.doctor.numbers import look_at_numbers
    from hairpin.machine.numerics import choose_device, formats

    device = choose_device(asked)
    yield from devices.look_at_torch()
    yield from devices.look_at_devices()
    yield devices.look_at_processes()
    yield from devices.look_at_formats(device)
    yield from look_at_numbers(device, formats(device) if precision == "auto" else [precision])
    if compiling:
        yield devices.look_at_compiling(device)
