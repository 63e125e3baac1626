"""The costs of a run as users get them: in words, and in plain values for JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hairpin.config.load import short_tree
from hairpin.data.blend import text_notices
from hairpin.data.checking.check import CorpusCheck
from hairpin.planning.gpus import MFU
from hairpin.planning.plan.checked import check_problems
from hairpin.planning.plan.costs import Costs, OnOneGpu, costs_of
from hairpin.planning.plan.measurements import FilledPlan
from hairpin.planning.plan.words import plan_lines
from hairpin.reports.phases import plotted_updates

_CURVE_POINTS = 100


@dataclass(frozen=True)
class Plan(Costs):
    """The cost of a run; its numbers are those of `Costs`."""

    def lines(self, *, color: bool = False) -> list[str]:
        """Return the plan in words."""
        return plan_lines(self, color=color)

    def as_json(self) -> dict[str, Any]:
        """Return the plan in plain values."""
        return plan_values(self)


def plan_of(filled: FilledPlan, check: CorpusCheck | None, folder: Path) -> Plan:
    """Return the plan of a filled-in config; arguments as in `costs_of`."""
    return Plan(**vars(costs_of(filled, check, folder)))


def plan_values(plan: Costs) -> dict[str, Any]:
    """Return the plan's values; names end in their unit, and unknown values are null."""
    return {
        "model": asdict(plan.shape),
        "parameters": {**asdict(plan.parameters), "total": plan.parameters.total},
        "flops": {
            "token": plan.flops_per_token,
            "update": plan.flops_per_token * plan.tokens_per_update,
            "run": plan.flops,
        },
        "tokens": _tokens(plan),
        "text": _text(plan),
        "memory": _memory(plan),
        "time": _times(plan),
        "gpus_on_paper": [_gpu(one) for one in plan.gpus],
        "disk": _disk(plan),
        "schedule": _schedule(plan),
        "check": check_values(plan.check) if plan.check else None,
        "warnings": list(plan.warnings),
        "config": short_tree(plan.config),
    }


def _tokens(plan: Costs) -> dict[str, Any]:
    amount = plan.amount
    return {
        "run": amount.tokens,
        "per_update": plan.tokens_per_update,
        "updates": plan.schedule.updates,
        "per_parameter": amount.tokens_per_parameter,
        "judgement": amount.judgement(),
        "epochs": amount.epochs,
        "epochs_judgement": amount.epochs_judgement(),
    }


def _memory(plan: Costs) -> dict[str, Any]:
    how = plan.config.execution
    return {
        **{f"{name}_bytes": size for name, size in plan.memory.parts().items()},
        "peak_bytes": plan.memory.total,
        "free_bytes": plan.free_memory_bytes,
        "fits": plan.fits,
        "micro_batch": how.micro_batch,
        "device": how.device,
        "precision": how.precision,
        "on_paper": how.device != "cpu",
    }


def _times(plan: Costs) -> dict[str, Any] | None:
    if plan.times is None:
        return None
    parts = {
        name if name.endswith("count") else f"{name}_seconds": value
        for name, value in asdict(plan.times).items()
    }
    return {**parts, "total_seconds": plan.times.total}


def _gpu(one: OnOneGpu) -> dict[str, Any]:
    return {
        "gpu": one.gpu.name,
        "peak_flops": one.gpu.flops,
        "number": one.gpu.number,
        "source": one.gpu.source,
        "mfu": MFU,
        "micro_batch": one.micro_batch,
        "memory_bytes": one.memory_bytes,
        "gpu_memory_bytes": one.gpu.memory_bytes,
        "fits": one.fits,
        "seconds": one.seconds,
    }


def _disk(plan: Costs) -> dict[str, Any]:
    return {
        "checkpoint_bytes": plan.disk.checkpoint,
        "checkpoints_kept": plan.disk.kept,
        "best_bytes": plan.disk.best,
        "shards_bytes": plan.disk.shards,
        "most_bytes": plan.disk.most,
        "free_bytes": plan.disk.free,
        "fits": plan.disk.fits,
    }


def _schedule(plan: Costs) -> dict[str, Any]:
    schedule = plan.schedule
    points = plotted_updates(schedule, _CURVE_POINTS)
    return {
        "kind": schedule.kind,
        "updates": schedule.updates,
        "warmup_updates": schedule.warmup,
        "curve": [[update, schedule(update)] for update in points],
    }


def _text(plan: Costs) -> dict[str, Any] | None:
    text = plan.text
    if text is None:
        return None
    return {
        "name": text.name,
        "documents": text.survey.documents,
        "bytes": text.survey.bytes,
        "train_tokens": text.train_tokens,
        "val_tokens": text.val_tokens,
        "bytes_per_token": text.bytes_per_token,
        "source": text.source,
        "left_out": dict(text.survey.left_out),
        "replaced": text.survey.replaced,
        "notices": list(text_notices(text.survey)),
        "sources": {
            name: {
                "share": share,
                "train_tokens": size,
                "epochs": plan.amount.tokens * share / size,
            }
            for name, (share, size) in text.sources.items()
        }
        or None,
    }


def check_values(check: CorpusCheck) -> dict[str, Any]:
    """Return the findings of the text check."""
    return {
        "documents": check.survey.documents,
        "bytes": check.survey.bytes,
        "checked_bytes": check.checked_bytes,
        "checked_documents": check.checked_documents,
        "empty_documents": check.empty_documents,
        "longest": {"name": check.longest[0], "bytes": check.longest[1]},
        "near_copies": asdict(check.near),
        "verbatim": {
            "windows": check.verbatim.windows,
            "found": check.verbatim.found,
            "share": check.verbatim.share,
        },
        "oddities": [asdict(odd) for odd in check.oddities],
        "repeated_lines": [asdict(line) for line in check.repeated],
        "repeated_bytes": check.repeated_bytes,
        "boilerplate_lines": [asdict(line) for line in check.boilerplate],
        "problems": list(check_problems(check)),
    }
