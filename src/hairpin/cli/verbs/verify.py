"""hairpin verify."""

import json
from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb, json_option
from hairpin.cli.printing import say, say_table


@click.command(
    cls=Verb,
    group="care",
    place=2,
    short_help="Check a run's files; prove exact resume on this machine.",
)
@click.argument("run_or_config", required=False, type=PATH)
@click.option("--resume", "prove", is_flag=True, help="Train, kill, resume and compare.")
@click.option(
    "--updates",
    type=click.IntRange(6, 100_000),
    default=60,
    show_default=True,
    help="With --resume: length of the run.",
)
@click.option(
    "--kills",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="With --resume: how often the run is killed.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the moments of the kills.",
)
@click.option("--keep", is_flag=True, help="Keep the two runs that were compared.")
@json_option
def verify(
    run_or_config: Path | None,
    prove: bool,
    updates: int,
    kills: int,
    seed: int,
    keep: bool,
    as_json: bool,
) -> None:
    """Check every file of a run, or prove that a killed run ends in the same bits.

    \b
      hairpin verify RUN                  checksums of all checkpoints, config, tokenizer, record
      hairpin verify --resume             train a small run, kill it, resume it, compare
      hairpin verify --resume CONFIG      the same with the text, model and device of a config
    """
    problems = (
        _prove(run_or_config, updates, kills, seed, keep, as_json)
        if prove
        else _check(run_or_config, as_json)
    )
    if problems:
        from hairpin.errors import HairpinError

        raise HairpinError(problems)


def _check(path: Path | None, as_json: bool) -> list[str]:
    """Show the state of a run; return its problems."""
    from rich.table import Table

    from hairpin import api
    from hairpin.doctor.verify_run import check_run
    from hairpin.reports.formats import safe_text
    from hairpin.reports.terminal.run_display import counting_bar

    run = api.load(path)
    with counting_bar("verifying") as on_progress:
        findings = check_run(run.directory, on_progress)
    problems = [problem for finding in findings for problem in finding.problems]
    if as_json:
        click.echo(json.dumps({"run": str(run.path), "findings": [vars(f) for f in findings]}))
        return problems
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        state = "DAMAGED" if finding.problems else "intact"
        table.add_row(safe_text(finding.what), state, safe_text(finding.note))
    say_table(table)
    return problems


def _prove(
    config: Path | None, updates: int, kills: int, seed: int, keep: bool, as_json: bool
) -> list[str]:
    """Show whether a killed run ends in the same bits; return the differences."""
    import shutil
    import tempfile

    from hairpin.doctor.verify_resume import prove_resume, short_config
    from hairpin.reports.terminal.run_display import counting_bar

    short = short_config(config, updates)
    folder = Path(tempfile.mkdtemp(prefix="hairpin-verify-"))
    try:
        with counting_bar("training twice") as on_progress:
            proof = prove_resume(short, folder, kills=kills, seed=seed, on_progress=on_progress)
    finally:
        if not keep:
            shutil.rmtree(folder)
    if as_json:
        what = {"kills": [vars(kill) for kill in proof.kills], "differences": proof.differences}
        click.echo(json.dumps(what | {"conditions": proof.conditions, "seed": seed}))
        return list(proof.differences)
    click.echo(
        f"{updates:,} updates uninterrupted, and with kills: {len(proof.kills)} (seed {seed})"
    )
    for kill in proof.kills:
        click.echo(
            f"  killed after {kill.after:,} updates, resumed from {kill.went_on_from:,}; "
            f"{kill.seconds_to_update:.1f} s to the next new update"
        )
    tensors, compared = proof.compared
    verdict = "DIFFERENT" if proof.differences else "identical, bit for bit"
    click.echo(f"{tensors:,} tensors and {compared:,} updates compared: {verdict}")
    click.echo(f"holds for {proof.conditions}")
    if keep:
        say(f"both runs are in {folder}")
    return list(proof.differences)
