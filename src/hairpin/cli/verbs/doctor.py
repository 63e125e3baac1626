"""hairpin runs, hairpin doctor."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hairpin.cli.options import PATH, json_option
from hairpin.cli.shown import say, say_table

if TYPE_CHECKING:
    from hairpin.doctor.findings import Finding
    from hairpin.run import Run


@click.command(short_help="List the runs in a folder.")
@click.argument("folder", required=False, type=PATH)
def runs(folder: Path | None) -> None:
    """List the runs in FOLDER, ./runs if left out: status, size, best validation."""
    from rich.table import Table

    from hairpin import api

    rows = [_row(run) for run in api.runs(folder)]
    left = ("run", "status")
    right = ["parameters", "updates", "best validation", "bits per byte"]
    if any(accuracy for *_, accuracy in rows):
        right.append("accuracy")
    table = Table(box=None, pad_edge=False)
    for heading in (*left, *right):
        table.add_column(heading, justify="left" if heading in left else "right")
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    say_table(table)


def _row(run: "Run") -> tuple[str, ...]:
    """Return the cells of a run's row; the last is a classifier's accuracy."""
    from hairpin.errors import UnreadableError
    from hairpin.reports.formats import harmless_name
    from hairpin.runs.watcher import reason_of

    name = harmless_name(str(run.path))
    try:
        return (name, *_outcome(run))
    except Exception as error:  # a record may hold anything; the other runs are still listed
        if isinstance(error, UnreadableError):
            words = f"unreadable: {error.path.name} ({error.reason})"
        else:
            words = f"damaged: {reason_of(error)}"
        return (name, harmless_name(words), "", "", "", "", "")


def _outcome(run: "Run") -> tuple[str, ...]:
    from hairpin.reports.formats import format_count, format_loss, harmless_name

    summary = run.summary()
    best = summary.best
    return (
        harmless_name(summary.status),
        format_count(summary.parameters) if summary.parameters else "",
        f"{summary.updates:,}",
        format_loss(best.val_loss) if best else "",
        f"{best.val_bits_per_byte:.3f}" if best and best.val_bits_per_byte else "",
        f"{best.val_accuracy:.1%}" if best and best.val_accuracy is not None else "",
    )


@click.command(short_help="What this machine can do, and what is wrong with it.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Whose numbers are compared with the CPU's.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "tf32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the products that are compared.",
)
@click.option("--compile", "compiling", is_flag=True, help="Compile too: up to a minute more.")
@json_option
def doctor(device: str, precision: str, compiling: bool, as_json: bool) -> None:
    """Look at this machine: versions, room, locks, devices, what is installed; and compare what a
    device computes (losses, gradients, updates, samples) with plain float64 on the CPU.

    Takes some seconds. A device that computes wrongly is exit code 1; all else is 0.
    """
    from hairpin.doctor.examine import examine
    from hairpin.reports.terminal.run_display import counting_bar

    with counting_bar("examining") as on_progress:
        findings = examine(
            device, precision=precision, compiling=compiling, on_progress=on_progress
        )
    wrong = [finding for finding in findings if finding.is_wrong]
    if as_json:
        facts = {"wrong": bool(wrong), "findings": [finding.as_json() for finding in findings]}
        click.echo(json.dumps(facts, allow_nan=False))
    else:
        _show_findings(findings)
    if wrong:
        from hairpin.errors import HairpinError

        names = ", ".join(finding.what for finding in wrong)
        is_cpu = all(finding.what.endswith("on cpu") for finding in wrong)
        remedy = "install another PyTorch"
        remedy = remedy if is_cpu else f"train with --device cpu, or {remedy}"
        raise HairpinError(f"wrong numbers: {names}; {remedy}")


def _show_findings(findings: "Sequence[Finding]") -> None:
    words = {"ok": "OK", "note": "note", "problem": "PROBLEM"}
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        line = f"{words[finding.state]:<8} {finding.what:<{width}}  {finding.text}"
        say(line)
