"""hairpin doctor."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hairpin.cli.options import Verb, json_option
from hairpin.cli.printing import say

if TYPE_CHECKING:
    from hairpin.doctor.findings import Finding


@click.command(
    cls=Verb,
    group="care",
    place=3,
    short_help="Report what this machine can do, and its problems.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="The device to compare with the CPU.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "tf32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Number format of the matrix products to compare.",
)
@click.option(
    "--compile", "compiling", is_flag=True, help="Compile too; takes up to a minute longer."
)
@json_option
def doctor(device: str, precision: str, compiling: bool, as_json: bool) -> None:
    """Check this machine: versions, disk space, locks, devices, extras; and compare a device's
    results (losses, gradients, updates, samples) with plain float64 on the CPU.

    Takes a few seconds. The exit code is 1 if a device computes wrong results, else 0.
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
