"""The request of a call becomes a checked config, whichever way its arguments are written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hairpin.errors import ConfigError, CorpusError
from hairpin.launch.request import (
    NO_TEXT,
    Request,
    check_request,
    requested_config,
    with_training_defaults,
)
from hairpin.reports.trackers.tools import require_known


def test_an_argument_may_be_one_thing_a_list_or_an_iterator() -> None:
    def once() -> Iterator[str]:
        yield "train.updates=7"

    written: list[str | list[str] | Iterator[str]] = ["train.updates=7", ["train.updates=7"]]
    for overrides in (*written, once()):
        request = Request(["a.txt"], overrides=overrides)
        # Twice: an iterator is not used up.
        assert [requested_config(request).train.updates for _ in range(2)] == [7, 7]


@pytest.mark.parametrize(
    ("argument", "key", "other"),
    [
        ({"start": "run"}, "start.path", "elsewhere"),
        ({"column": "body"}, "data.column", "title"),
        ({"track": ["wandb"]}, "track.tools", ("mlflow",)),
        ({"finetune": "classify"}, "finetune.kind", "instruct"),
        ({"texts": ["a.txt"]}, "data.texts", ["b.txt"]),
        ({"corpus": "verdict"}, "data.corpus", "stdlib"),
    ],
)
def test_an_argument_that_contradicts_the_settings_is_refused(
    argument: dict[str, object], key: str, other: object
) -> None:
    request = Request(**argument, settings={key: other})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"^{key}: .* as an argument disagree; keep one$"):
        check_request(request)


def test_texts_are_absolute_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked = check_request(Request(["a.txt"], out="runs/a"))
    assert checked.config.data.texts == (str(tmp_path / "a.txt"),)
    assert (checked.name, checked.request.folder) == ("a", Path("runs/a"))
    with pytest.raises(CorpusError, match="a text's name is empty"):
        check_request(Request([""]))


def test_a_request_without_a_text_trains_on_the_default_corpus() -> None:
    checked = check_request(Request())
    assert not checked.config.data.is_named
    begun = with_training_defaults(checked)
    assert (begun.config.data.corpus, begun.name, begun.notes) == ("stdlib", "stdlib", (NO_TEXT,))


def test_a_budget_is_in_seconds_and_has_a_default() -> None:
    assert check_request(Request(["a.txt"])).budget_seconds == 180
    assert check_request(Request(["a.txt"], settings={"model.size": "nano"})).budget_seconds is None
    long = with_training_defaults(
        check_request(Request(["a.txt"], budget="10m", overrides=["train.updates=9"]))
    )
    assert long.budget_seconds == 600
    assert long.notes == ("--budget: the length is set, so the budget only chooses the size",)


def test_trackers_are_those_that_the_call_names(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("track.tools = ['tensorboard']\n", encoding="utf-8")
    checked = check_request(Request(["a.txt"], config=file))
    assert (checked.config.track.tools, checked.trackers) == (("tensorboard",), ())
    for request in (
        Request(["a.txt"], config=file, track="wandb"),
        Request(["a.txt"], config=file, settings={"track.tools": ["wandb"]}),
        Request(["a.txt"], config=file, overrides=["track.tools=['wandb']"]),
    ):
        checked = check_request(request)
        assert (checked.config.track.tools, checked.trackers) == (("wandb",), ("wandb",))


def test_an_arm_may_not_vary_what_the_call_sets() -> None:
    request = Request(["a.txt"], overrides=["train.seed=1"], varied={"train.seed": 2})
    with pytest.raises(ConfigError, match=r"--set train.seed=1 and --vary train.seed=2 disagree"):
        requested_config(request)


def test_an_empty_folder_is_none_in_a_request() -> None:
    assert Request(["a.txt"], out="").folder is None
    assert Request(["a.txt"], out="here").folder == Path("here")


def test_a_tracker_that_does_not_exist_is_a_mistake_in_a_setting() -> None:
    with pytest.raises(ConfigError, match=r"track\.tools: there is no 'nope'"):
        require_known(["tensorboard", "nope"])
