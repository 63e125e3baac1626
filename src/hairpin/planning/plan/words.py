"""A plan in words, as a terminal shows it."""

from collections.abc import Iterator

from hairpin.data.blend import text_notices
from hairpin.planning.gpus import MFU
from hairpin.planning.plan.checked import check_lines
from hairpin.planning.plan.costs import Costs, Times
from hairpin.reports.formats import (
    format_bytes,
    format_count,
    format_duration,
    safe_name,
)
from hairpin.reports.schedule_drawing import draw_schedule

_NAME = 14
_MEMORY_WORDS = {
    "process": "Python, torch and hairpin",
    "weights": "float32",
    "gradients": "float32, at this moment",
    "moments": "of the optimizer",
    "casts": "16-bit copies of weights",
    "activations": "kept for the backward pass",
    "logits": "and the head's gradients",
    "update": "Muon's stacks",
    "snapshot": "a checkpoint's copy",
    "unused": "fragmentation",
}


def plan_lines(plan: Costs, *, color: bool = False) -> list[str]:
    """Return the plan's lines; each section has a title."""
    sections = [
        ("Model", _model(plan)),
        ("Computing", _computing(plan)),
        ("Tokens", _tokens(plan)),
        ("Memory", _memory(plan)),
        ("Time here", _times(plan)),
        ("Time on one GPU, on paper", _gpus(plan)),
        ("Disk", _disk(plan)),
    ]
    lines = []
    for title, rows in sections:
        lines += [title, *(f"  {row}" for row in rows), ""]
    lines += [draw_schedule(plan.schedule, color=color).rstrip(), ""]
    if plan.check:
        lines += ["Text", *(f"  {row}" for row in check_lines(plan.check)), ""]
    if warnings := plan.warnings:
        return [*lines, "Warnings", *(f"  ! {warning}" for warning in warnings)]
    return [*lines, "No warnings"]


def _row(name: str, value: str, words: str = "") -> str:
    return f"{name:<{_NAME}}{value:>12}  {words}".rstrip()


def _model(plan: Costs) -> Iterator[str]:
    shape, parts = plan.shape, plan.parameters
    yield (
        f"{shape.architecture}, {shape.layers} layers, {shape.heads} heads, {shape.width} wide, "
        f"context {shape.context:,}, vocabulary {shape.vocabulary:,}"
        + ("" if plan.text else " (assumed: no text given)")
    )
    yield _row("parameters", f"{parts.total:,}", format_count(parts.total))
    for name, count in (
        ("embedding", parts.token_embedding),
        ("positions", parts.position_embedding),
        ("blocks", parts.blocks),
        ("last norm", parts.final_norm),
        ("head", parts.head),
    ):
        words = ""
        if name == "head" and shape.tied:
            words = "shared with the embedding"
        if count or words:
            yield _row(f"  {name}", f"{count:,}", words)


def _computing(plan: Costs) -> Iterator[str]:
    batch = plan.tokens_per_update
    yield _row("a token", _flops(plan.flops_per_token), "6N + 12·L·C·T (PaLM, appendix B)")
    yield _row("an update", _flops(plan.flops_per_token * batch), f"of {batch:,} tokens")
    yield _row("the run", _flops(plan.flops), "without recomputation")


def _flops(flops: float) -> str:
    mantissa, exponent = f"{flops:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _sequences(count: int | None) -> str:
    return f"micro-batches of {count} sequence{'' if count == 1 else 's'}"


def _tokens(plan: Costs) -> Iterator[str]:
    amount, text = plan.amount, plan.text
    updates = plan.schedule.updates
    yield _row(
        "the run", format_count(amount.tokens), f"{updates:,} updates of {plan.tokens_per_update:,}"
    )
    if text:
        about = "" if text.source == "counted" else "about "
        yield _row(
            "the text",
            format_count(text.train_tokens),
            f"for training and {about}{format_count(text.val_tokens)} for validation, "
            f"{text.source}; {text.bytes_per_token:.2f} bytes a token "
            f"({safe_name(text.name, 40)})",
        )
        for line in text_notices(text.survey):
            yield _row("", "", line)
        for name, (share, size) in text.sources.items():
            passes = f"{amount.tokens * share / max(1, size):.3g} passes"
            yield _row(f"  {name}", passes, f"{share:.1%} of it, from {format_count(size)} tokens")
        assert amount.epochs
        yield _row(
            "passes",
            f"{amount.epochs:.3g}",
            f"{amount.epochs_judgement()}" if not text.sources else "of all sources",
        )
        yield _row("", "", "(Muennighoff et al. 2023: up to 4 nearly as good as new text)")
    yield _row("a parameter", f"{amount.tokens_per_parameter:.3g}", amount.judgement())
    yield _row("", "", "(Hoffmann et al. 2022: about 20 make the best use of the compute)")


def _memory(plan: Costs) -> Iterator[str]:
    how, memory = plan.config.execution, plan.memory
    samples = plan.tokens_per_update // plan.shape.context
    yield (
        f"{_sequences(how.micro_batch)}, {samples} in an update, on {how.device} in "
        f"{how.precision if how.precision != 'auto' else 'float32 or bfloat16'}"
        + (", on paper" if how.device != "cpu" else "")
    )
    if not memory.snapshot and how.device != "cuda":
        yield "the peak is before training, while an update is timed in the other format"
    for name, size in memory.parts().items():
        if size:
            yield _row(f"  {name}", format_bytes(size), _MEMORY_WORDS[name])
    fits = {True: "it fits", False: "it does not fit", None: "the free memory is unknown"}[
        plan.fits
    ]
    free = plan.free_memory_bytes
    yield _row(
        "peak",
        format_bytes(memory.total),
        fits + (f": {format_bytes(free)} are free" if free is not None else ""),
    )


def _times(plan: Costs) -> Iterator[str]:
    times = plan.times
    if times is None:
        yield plan.not_measured or "not measured (--no-probe)"
        return
    yield from _measured(plan, times)


def _measured(plan: Costs, times: Times) -> Iterator[str]:
    speed = plan.tokens_per_update / times.per_update
    rows = (
        ("updates", times.updates, f"{times.per_update:.3g} s each, {speed:,.0f} tokens a second"),
        ("evaluations", times.evaluations, f"{times.evaluation_count} of them"),
        ("samples", times.samples, f"of {plan.config.evaluate.sample_tokens} tokens"),
        ("checkpoints", times.checkpoints, f"{times.checkpoint_count}, in the background"),
        ("preparing", times.preparing, "text into tokens, once"),
        ("starting", times.starting, "with timing updates"),
        ("ending", times.ending, "the last checkpoint, summary and plots"),
    )
    for name, seconds, words in rows:
        if seconds:
            yield _row(f"  {name}", format_duration(seconds), words)
    yield _row(
        "in all", format_duration(times.total), "as measured now; longer if other programs run"
    )


def _gpus(plan: Costs) -> Iterator[str]:
    yield f"only updates, at an assumed {MFU:.0%} of peak (MFU); small networks reach less"
    for one in plan.gpus:
        fits = "" if one.fits else "; does not fit"
        yield _row(
            f"  {one.gpu.name}",
            format_duration(one.seconds),
            f"{one.gpu.flops / 1e12:,.0f} TFLOP/s {one.gpu.number}, micro-batches of "
            f"{one.micro_batch}, {format_bytes(one.memory_bytes)} of "
            f"{format_bytes(one.gpu.memory_bytes)}{fits}",
        )


def _disk(plan: Costs) -> Iterator[str]:
    disk = plan.disk
    yield _row("a checkpoint", format_bytes(disk.checkpoint), f"{disk.kept} kept")
    yield _row("best weights", format_bytes(disk.best))
    if disk.shards:
        yield _row("tokens", format_bytes(disk.shards), "in the cache, for all runs on this text")
    fits = "enough space" if disk.fits else "not enough space"
    yield _row("at most", format_bytes(disk.most), f"{fits}: {format_bytes(disk.free)} are free")
