"""Check that everything in a run is as it was written; only reads, so it is safe during
training.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hairpin.checkpoints.best import best_folder
from hairpin.checkpoints.live import read_live
from hairpin.checkpoints.manifest import Checkpoint, open_checkpoint
from hairpin.checkpoints.store import CheckpointStore
from hairpin.data.tokenizers import load_tokenizer
from hairpin.errors import CheckpointError, HairpinError, UnreadableError
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record
from hairpin.system.access import is_there
from hairpin.system.shell import command
from hairpin.training.checkpoint import changes_since

_ASIDE = (
    "checkpoints/.bad-*",
    ".bad-*",
    "metrics.discarded-*",
)


@dataclass(frozen=True)
class Finding:
    """The result of checking one file or folder of a run.

    Args:
        what: the path within the run.
        problems: a line each; empty if it is intact.
        note: useful facts about it.
    """

    what: str
    problems: tuple[str, ...] = ()
    note: str = ""


def check_run(
    run: RunDirectory, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Finding]:
    """Check each checkpoint, the best weights, config, tokenizer and record of a run, and list what
    was set aside.

    Args:
        run: the run's folder.
        on_progress: called with the checkpoints done and their total.
    """
    try:
        paths = CheckpointStore(run.checkpoints).steps()
        has_best = best_folder(run.best) is not None
    except UnreadableError as error:
        return [Finding("checkpoints", error.problems)]
    if has_best:
        paths.append(run.best)
    findings, newest = [], None
    for number, path in enumerate(paths):
        on_progress(number, len(paths))
        finding, checkpoint = _check_checkpoint(run, path)
        if finding:
            findings.append(finding)
        if checkpoint and path != run.best:
            newest = checkpoint
    on_progress(len(paths), len(paths))
    findings += [_check_settings(run, newest), _check_tokenizer(run, newest)]
    findings.append(_check_record(run, newest))
    return [*findings, *_set_aside(run)]


def _check_checkpoint(run: RunDirectory, path: Path) -> tuple[Finding | None, Checkpoint | None]:
    what = str(path.relative_to(run.path))

    def find() -> Path | None:
        place = (path == run.best and best_folder(path)) or path
        return place if is_there(place) else None

    try:
        checkpoint = read_live(find, lambda found: open_checkpoint(found.path))
        if checkpoint is None:  # deleted by rotation while it was read
            return None, None
    except CheckpointError as damage:
        way_out = f"`{command('resume', run.path)}` sets it aside and resumes from the previous one"
        return Finding(what, tuple(f"{line}; {way_out}" for line in damage.problems)), None
    except HairpinError as error:
        return Finding(what, error.problems), None
    size = sum(facts["size"] for facts in checkpoint.manifest["files"].values())
    return Finding(what, note=f"update {checkpoint.step:,}, {size / 1e6:,.1f} MB"), checkpoint


def _check_settings(run: RunDirectory, newest: Checkpoint | None) -> Finding:
    try:
        config = run.read_config()
        changes = changes_since(newest, config, {}) if newest else ()
    except HairpinError as error:
        return Finding("config.toml", error.problems)
    return Finding("config.toml", note="; ".join(changes))


def _check_tokenizer(run: RunDirectory, newest: Checkpoint | None) -> Finding:
    if newest is None and not is_there(run.tokenizer):
        return Finding("tokenizer", note="not created yet")
    try:
        tokenizer = load_tokenizer(run.tokenizer)
    except HairpinError as error:
        return Finding("tokenizer", error.problems)
    if newest and newest.manifest.get("tokenizer_sha256") != tokenizer.hash():
        problem = f"{run.tokenizer}: not the tokenizer that {newest.path} was trained with"
        return Finding("tokenizer", (f"{problem}; restore it from a copy",))
    return Finding("tokenizer", note=f"{tokenizer.kind}, {tokenizer.vocabulary:,} tokens")


def _check_record(run: RunDirectory, newest: Checkpoint | None) -> Finding:
    count, problems = 0, list[str]()
    try:
        for event in read_record(run.metrics):
            if event["event"] == "update":
                if event.get("update") != count and not problems:
                    found = event.get("update")
                    problems.append(f"{run.metrics}: update {found} instead of {count}")
                count += 1
    except HairpinError as error:
        return Finding(run.metrics.name, error.problems)
    if newest and count < newest.step:
        problems.append(
            f"{run.metrics}: has {count:,} updates, and {newest.path} is of "
            f"{newest.step:,}; a resume continues with that gap"
        )
    return Finding(run.metrics.name, tuple(problems), f"{count:,} updates")


def _set_aside(run: RunDirectory) -> Iterator[Finding]:
    for pattern in _ASIDE:
        for path in sorted(run.path.glob(pattern)):
            yield Finding(str(path.relative_to(run.path)), note="set aside; can be deleted")
