"""Effect of gradient clipping in a run, and a suggestion for another threshold."""

import math
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hairpin.config.settings import Clip
from hairpin.reports.formats import format_norm, safe_name
from hairpin.reports.history import Updates, history

_MOST_OFTEN = 0.5  # clipping a larger share of updates counts as clipping most of them
_USUAL_SHARE = 0.95  # of the norms should be below the threshold
_OUTLIER = 3.0  # times the median norm


@dataclass(frozen=True)
class Clipping:
    """The effect of clipping, over all updates that were applied and whose gradients were finite.

    Args:
        kind, threshold: from the config.
        share: fraction of updates that were clipped; `warmup_share` of those in warmup and
            `later_share` of those after it: None if there were none.
        median_scale, strongest_scale: median and smallest factor (threshold over norm) of gradients
            that were clipped by norm. None: none were.
        leader: the parameter that most often had the largest gradient, in `leader_share` of the
            updates, with `leader_norm_share` of the squared norm (the median). None: an old record.
        suggested: a threshold; None: the current one is fine.
        reason: the explanation.
    """

    kind: str
    threshold: float
    share: float
    warmup_share: float | None
    later_share: float | None
    median_scale: float | None
    strongest_scale: float | None
    leader: str | None
    leader_share: float | None
    leader_norm_share: float | None
    suggested: float | None
    reason: str

    def lines(self) -> list[tuple[str, str]]:
        """Return names and words for people; a row without a name continues the one above it."""
        first, *others = [*self._clipped_share_words(), *self._leader_words(), self.reason]
        return [("clipping", first), *(("", words) for words in others)]

    def _clipped_share_words(self) -> list[str]:
        if not self.share:
            return []
        shares = [("in warmup", self.warmup_share), ("after it", self.later_share)]
        words = ", ".join(f"{share:.0%} {when}" for when, share in shares if share is not None)
        if self.median_scale is not None and self.strongest_scale is not None:
            scales = f"{self.median_scale:.2g} (median) to {self.strongest_scale:.2g}"
            words += f"; clipped gradients were scaled by {scales}"
        return [words]

    def _leader_words(self) -> list[str]:
        if self.leader is None:
            return []
        return [
            f"{safe_name(self.leader)} had the largest gradient in {self.leader_share:.0%} of "
            f"updates, with {self.leader_norm_share:.0%} of the squared norm"
        ]


def clipping_of(events: Sequence[dict[str, Any]], clip: Clip, warmup: int) -> Clipping | None:
    """Measure the effect of clipping in a run; None: no update has a norm.

    Args:
        events: the valid events of the record.
        clip: the settings.
        warmup: number of warmup updates.
    """
    used = _AppliedUpdates(history(events).updates)
    if not used.norms:
        return None
    later = array("l", (at for at, number in enumerate(used.numbers) if number >= warmup))
    early = array("l", (at for at, number in enumerate(used.numbers) if number < warmup))
    norms = [used.norms[at] for at in later or early]
    scales = [
        min(1.0, clip.threshold / norm)
        for norm, clipped in zip(used.norms, used.clipped, strict=True)
        if clipped and clip.kind == "norm" and norm > 0
    ]
    share = used.share(range(len(used.norms))) or 0.0
    suggested, reason = _suggestion(clip, norms, share, used.share(later))
    leader, leads, leader_norm_share = used.leader()
    return Clipping(
        kind=clip.kind,
        threshold=clip.threshold,
        share=share,
        warmup_share=used.share(early),
        later_share=used.share(later),
        median_scale=statistics.median(scales) if scales else None,
        strongest_scale=min(scales, default=None),
        leader=leader,
        leader_share=leads,
        leader_norm_share=leader_norm_share,
        suggested=suggested,
        reason=reason,
    )


class _AppliedUpdates:
    """The updates that count, in columns: there may be hundreds of thousands."""

    def __init__(self, updates: Updates) -> None:
        self.numbers, self.norms, self.clipped = array("d"), array("d"), array("d")
        self._led: dict[str, array[float]] = {}  # parameter → its shares in updates where it leads
        names = ("update", "grad_norm", "clipped", "leader_share", "skipped", "overflow")
        columns = [updates.column(name) for name in names]
        rows = zip(*columns, updates.words("leader"), strict=True)
        for number, norm, clipped, share, skipped, overflow, leader in rows:
            if math.isfinite(norm) and skipped != 1 and overflow != 1:
                self.numbers.append(number)
                self.norms.append(norm)
                self.clipped.append(clipped == 1)
                # If all gradients are zero, no share is a number.
                if leader is not None and math.isfinite(share):
                    self._led.setdefault(leader, array("d")).append(share)

    def share(self, places: Sequence[int]) -> float | None:
        """Return the fraction of the updates at `places` that was clipped; None: no places."""
        return sum(self.clipped[at] for at in places) / len(places) if places else None

    def leader(self) -> tuple[str | None, float | None, float | None]:
        """Return the parameter that leads most often, its share of updates and that of the norm."""
        if not self._led:
            return None, None, None
        name = max(self._led, key=lambda one: len(self._led[one]))
        count = sum(map(len, self._led.values()))
        return name, len(self._led[name]) / count, statistics.median(self._led[name])


def _suggestion(
    clip: Clip,
    norms: Sequence[float],
    share: float,
    later_share: float | None,
) -> tuple[float | None, str]:
    """Return a better threshold, if any, and the reason. The norms are those after warmup."""
    usual = _rounded_up(sorted(norms)[math.ceil(_USUAL_SHARE * len(norms)) - 1])
    setting = f"clip.threshold={usual:g}"
    if clip.kind == "off":
        return usual, f"nothing is clipped; {setting} would have clipped the largest 5% of norms"
    if later_share is not None and later_share > _MOST_OFTEN and clip.kind == "norm":
        return usual, (
            "clipping most updates gives them all the same norm, which matters little to AdamW "
            f"and Muon; {setting} would catch the largest 5%"
        )
    return _suggestion_if_few_clipped(clip, norms, share, later_share)


def _suggestion_if_few_clipped(
    clip: Clip, norms: Sequence[float], share: float, later_share: float | None
) -> tuple[float | None, str]:
    """Return the same if at most half of the norms are clipped."""
    if clip.kind == "value":
        return None, "entries are clipped one by one, which changes the gradient's direction"
    if not share:
        return _threshold_for_outliers(norms)
    if later_share is None:
        return None, "the whole run was warmup"
    if not later_share:
        return None, "clipping limited the first updates and was not needed after warmup"
    return None, f"clipping caught the largest {later_share:.1%} of norms, as intended"


def _threshold_for_outliers(norms: Sequence[float]) -> tuple[float | None, str]:
    """Return a threshold that would have caught the outliers, if nothing was clipped."""
    median, largest = statistics.median(norms), max(norms)
    outliers = [norm for norm in norms if norm > _OUTLIER * median]
    if not outliers:
        times = f"{largest / median:.1f} times" if median else "above"
        return None, f"clipping did nothing: the largest norm is {times} the median"
    inside = max(norm for norm in norms if norm <= _OUTLIER * median)
    threshold = _rounded_up(inside)
    if not 0 < threshold < min(outliers):
        threshold = (inside + min(outliers)) / 2
    count = f"the largest {len(outliers)} norms" if len(outliers) > 1 else "the one large norm"
    return threshold, (
        f"clipping did nothing; clip.threshold={threshold:.6g} would have caught {count} "
        f"(up to {format_norm(largest)})"
    )


def _rounded_up(value: float) -> float:
    """Return the smallest number of two digits that is not below the value."""
    if value < 1e-300:  # the computation would underflow
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")
