"""What a record says of a run's settings, worked out by hand."""

from typing import Any

import pytest

from hairpin.config.load import build_config
from hairpin.config.settings import Config
from hairpin.reports.clipping import Clipping
from hairpin.reports.diagnostics import Diagnostics, Memorised, diagnose, lines_with
from hairpin.reports.summary import summarize

PLAN = {
    "event": "plan", "text": "book", "parameters": 10, "updates": 100, "warmup": 2,
    "tokens_per_update": 10, "train_tokens": 250, "val_tokens": 50, "epochs": 4.0,
    "seconds": 1.0, "ends": 1.0,
}  # fmt: skip
START = {"event": "start", "time": 0.0, "version": "0.1.0", "command": []}
END = {"event": "end", "update": 100, "status": "finished", "seconds": 9.0}


def config(**flags: Any) -> Config:
    return build_config(flags={key.replace("__", "."): value for key, value in flags.items()})


def updates(norms: list[float], threshold: float | None = 1.0, **more: Any) -> list[dict[str, Any]]:
    """Updates with these gradient norms, clipped above the threshold."""
    return [
        {
            "event": "update", "update": number, "lr": 0.1, "loss": 3.0, "grad_norm": norm,
            "clipped": threshold is not None and norm > threshold, "tokens": 10,
            "tokens_per_second": 100.0, **more,
        }
        for number, norm in enumerate(norms)
    ]  # fmt: skip


def evaluation(update: int, train: float, val: float) -> dict[str, Any]:
    return {
        "event": "evaluation", "update": update, "tokens": 10 * update, "train_loss": train,
        "val_loss": val,
    }  # fmt: skip


def clipping(events: list[dict[str, Any]], **flags: Any) -> Clipping:
    found = diagnose([START, PLAN, *events], config(**flags)).clipping
    assert found is not None
    return found


# --- clipping ---


def test_shares_and_scales_worked_out_by_hand() -> None:
    # Two updates of warmup, one of them clipped; of eight after it two.
    found = clipping(updates([4.0, 0.5, 2.0, 1.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]))
    assert (found.share, found.warmup_share, found.later_share) == (0.3, 0.5, 0.25)
    # 1/4, 1/2, 1/1.25
    assert (found.median_scale, found.strongest_scale) == (0.5, 0.25)
    assert found.suggested is None and "as intended" in found.reason
    assert found.lines()[0] == (
        "clipping",
        "50% in warmup, 25% after it; clipped gradients were scaled by 0.5 (median) to 0.25",
    )


def test_clipping_most_updates_is_a_reason_for_a_higher_threshold() -> None:
    # After warmup 1.01 … 1.20: nineteen of twenty are at most 1.19, which is 1.2 in two digits.
    norms = [1 + n / 100 for n in range(1, 21)]
    found = clipping(updates([0.1, 0.1, *norms]))
    assert found.later_share == 1.0
    assert found.suggested == 1.2
    assert "clip.threshold=1.2" in found.reason and "AdamW" in found.reason


def test_a_threshold_that_was_never_reached_did_nothing() -> None:
    norms = [0.3] * 50 + [0.5, 1.7, 0.31, 2.5]
    found = clipping(updates([9.0, 9.0, *norms], threshold=10.0), clip__threshold=10.0)
    assert (found.share, found.median_scale, found.strongest_scale) == (0.0, None, None)
    # Three medians are 0.9; the largest below that is 0.5.
    assert found.suggested == 0.5
    assert found.reason == (
        "clipping did nothing; clip.threshold=0.5 would have caught the largest 2 norms (up to "
        "2.50)"
    )
    even = clipping(updates([0.2, 0.2, *[0.2] * 30, 0.3]))
    assert even.suggested is None
    assert even.reason == "clipping did nothing: the largest norm is 1.5 times the median"


def test_a_threshold_between_two_norms_that_are_close() -> None:
    found = clipping(updates([0.2, 0.2, *[0.1] * 30, 0.299, 0.3005]))
    assert found.suggested is not None and 0.299 < found.suggested < 0.3005


def test_clipping_in_warmup_only_is_said() -> None:
    found = clipping(updates([5.0, 3.0, 0.5, 0.5]))
    assert (found.warmup_share, found.later_share, found.suggested) == (1.0, 0.0, None)
    assert "not needed after warmup" in found.reason


def test_by_value_or_off() -> None:
    value = clipping(updates([2.0] * 4), clip__kind="value")
    assert (value.share, value.median_scale, value.suggested) == (1.0, None, None)
    off = clipping(updates([1.0] * 4 + [7.0], threshold=None), clip__kind="off")
    assert (off.share, off.suggested) == (0.0, 7.0)
    assert "nothing is clipped" in off.reason


def test_updates_that_were_not_used_do_not_count() -> None:
    good, bad = updates([0.5, 0.5, 0.5, 2.0]), updates([9.0] * 3)
    bad[0] |= {"skipped": True}
    bad[1] |= {"overflow": True}
    bad[2] |= {"grad_norm": None, "non_finite": "nan"}
    found = clipping(good + [event | {"update": 4 + n} for n, event in enumerate(bad)])
    assert (found.share, found.strongest_scale) == (0.25, 0.5)
    assert diagnose([START, PLAN, *bad], config()).clipping is None


def test_who_leads_the_norm() -> None:
    events = updates([0.5] * 5)
    leaders = [("head.weight", 0.9), ("a", 0.3), ("head.weight", 0.5), ("head.weight", 0.6)]
    for event, (name, share) in zip(events, leaders, strict=False):
        event |= {"leader": name, "leader_share": share}
    found = clipping(events)
    assert (found.leader, found.leader_share, found.leader_norm_share) == ("head.weight", 0.75, 0.6)
    assert found.lines()[0] == (
        "clipping",
        "head.weight had the largest gradient in 75% of updates, with 60% of the squared norm",
    )


def test_all_of_it_was_warmup() -> None:
    assert clipping(updates([2.0, 2.0])).later_share is None


# --- step sizes ---


def ratios(update: int, **parts: float) -> dict[str, Any]:
    return {"event": "ratios", "update": update, "lr": 0.1, "ratios": parts}


def test_step_sizes_at_the_end_of_warmup_and_at_the_end() -> None:
    sizes = [ratios(0, mlp=0.5), ratios(10, mlp=0.0021, head=0.19), ratios(90, mlp=0.0009)]
    found = diagnose([START, PLAN, *sizes], config(optimizer__kind="adamw"))
    assert found.after_warmup is not None and found.at_end is not None
    assert (found.after_warmup.update, found.at_end.update) == (10, 90)
    assert found.lines() == [
        ("step sizes", "change / weight in update 10: head 0.19, mlp 2.1e-3 "
         "(about 0.001, as a rule of thumb)"),
        ("", "in update 90: mlp 9.0e-4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "ratio", "words"),
    [
        ("adamw", 0.2, "far above: a lower --lr"),
        ("adamw", 0.000005, "far below: a higher --lr"),
        ("adamw", 0.04, "rule of thumb)"),
        ("muon", 0.2, ""),
    ],
)
def test_far_from_the_rule_of_thumb(kind: str, ratio: float, words: str) -> None:
    sizes = [ratios(10, mlp=ratio, attention=ratio, norm=0.001)]
    found = diagnose([START, PLAN, *sizes], config(optimizer__kind=kind))
    ((name, said),) = found.lines()
    assert name == "step sizes" and words in said
    assert ("rule of thumb" in said) == (kind == "adamw")


# --- validation ---


def test_overfitting_is_told_with_what_would_help() -> None:
    record = [START, PLAN, evaluation(0, 5.0, 5.0), evaluation(25, 2.0, 3.0),
              evaluation(100, 1.0, 4.0), END]  # fmt: skip
    found = diagnose(record, config())
    # 4 passes in 100 updates: one in 25.
    assert found.overfitted and found.best_passes == 1.0
    assert found.advice is not None
    assert "`best/` has the weights of update 25, after 1 pass over" in found.advice
    assert "dropout" not in found.advice, "a modern network has none"
    gpt2 = diagnose(record, config(recipe="gpt2"))
    assert gpt2.advice is not None and "model.dropout" in gpt2.advice
    rows = lines_with(summarize(record), found)
    (place,) = [n for n, row in enumerate(rows) if row.startswith("overfitting after update 25")]
    assert rows[place + 1].startswith(" " * 12 + "`best/` has")


@pytest.mark.parametrize(
    ("last", "epochs", "words"),
    [
        ((2.9, 3.0), 9.0, "after 9 passes over the training data, and close to the training loss"),
        ((2.0, 3.0), 9.0, "1.000 above the training loss: more text"),
        ((2.0, 3.0), 0.5, "after 0.5 passes over the training data: more updates"),
        ((4.0, 4.001), 9.0, "flat"),
    ],
)
def test_other_ends(last: tuple[float, float], epochs: float, words: str) -> None:
    record = [START, PLAN | {"epochs": epochs}, evaluation(0, 5.0, 5.0), evaluation(50, 4.0, 4.0),
              evaluation(100, *last), END]  # fmt: skip
    advice = diagnose(record, config()).advice
    assert advice is not None and words in advice


def test_without_two_evaluations_there_is_no_advice() -> None:
    assert diagnose([START, PLAN, evaluation(0, 5.0, 5.0), END], config()).advice is None


# --- memorisation ---

TOLD = {
    "event": "memorisation", "update": 100, "shortest_bytes": 50, "sample_bytes": 1000,
    "verbatim_bytes": 600, "longest_bytes": 300, "longest_text": "a\x1b[31m\n" + "b" * 300,
    "val_bytes": 2000, "val_verbatim_bytes": 100, "searched_bytes": 5000, "train_bytes": 5000,
}  # fmt: skip


def memorised(**changes: Any) -> Memorised:
    found = diagnose([START, PLAN, TOLD | changes], config()).memorised
    assert found is not None
    return found


def test_memorised_text() -> None:
    found = memorised()
    assert (found.share, found.val_share, found.is_memorised) == (0.6, 0.05, True)
    (name, words), (_, longest) = found.lines()
    assert name == "memorised"
    assert words == (
        "60% of 1,000 generated bytes are verbatim from the training text (at least 50 bytes at a "
        "time), 5% of the validation text: more than such text repeats itself"
    )
    assert longest.startswith('the longest: 300 bytes, "a\\x1b[31m\\nbbb')
    assert longest.endswith('b…"') and len(longest) < 240 and longest.isprintable()


def test_no_more_than_text_repeats_itself() -> None:
    found = memorised(val_verbatim_bytes=1150, searched_bytes=1_000_000, train_bytes=2_000_000)
    assert not found.is_memorised
    assert (
        "57% of the validation text (1 MB of 2 MB searched): no more than such text repeats itself"
        in (found.lines()[0][1])
    )
    nothing = memorised(verbatim_bytes=0, longest_bytes=0, longest_text="", val_bytes=0)
    ((_, words),) = nothing.lines()
    assert words.startswith("0% of 1,000 generated bytes") and words.endswith("the validation text")


# --- whole records ---


def test_old_records_and_empty_ones_have_nothing_to_say_of_what_they_lack() -> None:
    assert diagnose([], config()) == Diagnostics(optimizer="muon")
    assert Diagnostics().lines() == []
    old = diagnose([START, *updates([2.0, 0.5])], config())
    assert old.clipping is not None and old.clipping.leader is None
    assert (old.after_warmup, old.memorised, old.best_passes) == (None, None, None)


def test_what_a_resume_went_back_behind_is_left_out() -> None:
    lost = [*updates([9.0] * 5), ratios(4, mlp=0.9), TOLD]
    again = [event | {"update": 4} for event in updates([0.5])]
    resume = {"event": "resume", "update": 4, "time": 1.0}
    found = diagnose([START, PLAN, *lost, resume, *again, ratios(4, mlp=0.1)], config())
    assert found.memorised is None
    assert found.after_warmup is not None and found.after_warmup.ratios == {"mlp": 0.1}
    assert found.clipping is not None and found.clipping.share == 4 / 5


def test_rows_stand_below_those_of_their_name() -> None:
    record = [START, PLAN, *updates([2.0, 0.5, 0.5]), evaluation(0, 5.0, 5.0), TOLD, END]
    summary, found = summarize(record), diagnose(record, config())
    rows = lines_with(summary, found)
    assert set(summary.lines()) <= set(rows)
    place = [row[:12].strip() for row in rows].index("clipping")
    names = [row[:12].strip() for row in rows[place : place + 4]]
    assert names == ["clipping", "", "", "memorised"]
