"""The classifier: where a label is read, what padding changes, which blocks train."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

import hairpin
from hairpin.config.settings import Optimizer
from hairpin.data.batches import IGNORED
from hairpin.errors import ConfigError, Interrupted
from hairpin.model.classifier import Classifier, freeze_below
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import build_optimizer
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.tasks.classification import labelled_example
from hairpin.tasks.examples import collate
from helpers import (
    Watching,
    assert_same_history,
    finetune,
    labels_file,
    last_checkpoint,
    random_ids,
    weights_of,
)

SHAPE = Shape(50, 16, layers=2, heads=2, width=16)
LENGTHS = (3, 16, 1, 9, 9, 2)


pytestmark = pytest.mark.usefixtures("no_plots")


def lively_classifier(labels: int = 3, **changes: Any) -> Classifier:
    """A classifier whose parameters are all far from zero and one."""
    shape = Shape(**{**vars(SHAPE), **changes})
    model = Classifier(shape, labels)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.normal_(mean, 0.3, generator=generator)
    return model


def texts() -> list[torch.Tensor]:
    return [random_ids(n, below=50, seed=n + row) for row, n in enumerate(LENGTHS)]


# --- where the label is read ---


def test_the_label_is_read_at_the_last_token_of_each_text() -> None:
    model = lively_classifier().eval()
    inputs, targets = collate([labelled_example(ids.numpy(), 1, "") for ids in texts()])
    with torch.no_grad():
        together = model.label_logits(inputs, targets != IGNORED)
        for ids, logits in zip(texts(), together, strict=True):
            hidden = model.hidden(ids[None])[0, -1]
            alone = hidden @ model.class_head.weight.T + model.class_head.bias
            torch.testing.assert_close(logits, alone, atol=1e-6, rtol=1e-6)
        # What stands behind a text is not looked at.
        padded = torch.where(torch.arange(16) < torch.tensor(LENGTHS)[:, None], inputs, 49)
        again = model.label_logits(padded, targets != IGNORED)
        torch.testing.assert_close(again, together, atol=1e-6, rtol=1e-6)
        earlier = targets.roll(-1, dims=1)  # one token less of the second text
        assert not torch.allclose(model.label_logits(inputs, earlier != IGNORED)[1], together[1])


def test_the_loss_and_its_gradient_are_those_of_the_texts_one_by_one() -> None:
    labels = [0, 2, 1, 1, 0, 2]
    batch = collate(
        [
            labelled_example(ids.numpy(), label, "")
            for ids, label in zip(texts(), labels, strict=True)
        ]
    )
    model = lively_classifier()
    loss, count = model(*batch)
    assert int(count) == 6
    loss.backward()
    padded = {name: p.grad for name, p in model.named_parameters()}
    alone = lively_classifier()
    expected = torch.zeros(())
    for ids, label in zip(texts(), labels, strict=True):
        logits = alone.class_head(alone.hidden(ids[None])[:, -1])
        expected = expected + F.cross_entropy(logits, torch.tensor([label]), reduction="sum")
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-6)
    largest = max(float(p.grad.abs().max()) for p in alone.parameters() if p.grad is not None)
    for name, parameter in alone.named_parameters():
        assert parameter.grad is not None and padded[name] is not None, name
        torch.testing.assert_close(
            padded[name], parameter.grad, atol=1e-6 * largest, rtol=1e-5, msg=name
        )


def test_a_classifier_is_the_gpt_of_its_seed_with_a_head_of_its_own() -> None:
    gpt, classifier = GPT(SHAPE, seed=4), Classifier(SHAPE, 3, seed=4)
    own = {name: p for name, p in classifier.named_parameters() if "class_head" in name}
    assert {name: tuple(p.shape) for name, p in own.items()} == {
        "class_head.weight": (3, 16),
        "class_head.bias": (3,),
    }
    for name, parameter in gpt.named_parameters():
        assert torch.equal(parameter, classifier.get_parameter(name))
    assert not own["class_head.bias"].any()
    torch.manual_seed(99)
    assert torch.equal(Classifier(SHAPE, 3, seed=4).class_head.weight, own["class_head.weight"])
    assert not torch.equal(Classifier(SHAPE, 3, seed=5).class_head.weight, own["class_head.weight"])


# --- which blocks train ---


@pytest.mark.parametrize(
    ("layers", "frozen"),
    [
        (0, ("token_embedding", "position_embedding", "blocks.0", "blocks.1")),
        (1, ("token_embedding", "position_embedding", "blocks.0")),
        (2, ("token_embedding", "position_embedding")),
        (None, ()),
    ],
)
def test_only_the_blocks_asked_for_train(layers: int | None, frozen: tuple[str, ...]) -> None:
    model = lively_classifier()
    freeze_below(model, layers)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen), name
    optimizer = build_optimizer(model, Optimizer())
    chosen = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert chosen == {id(p) for p in model.parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="3 blocks were asked for and there are 2"):
        freeze_below(model, 3)


def classify(base: Run, folder: Path, out: str, **changes: Any) -> Run:
    return hairpin.finetune(
        "classify",
        folder / "labels.csv",
        start=base.path,
        out=folder / out,
        settings=finetune(**changes),
        watcher=Quiet(),
    )


def moments_of(folder: Path) -> set[str]:
    """The parameters that a checkpoint has moments of."""
    with safe_open(folder / "optimizer.safetensors", "pt") as file:
        return {name.partition(".")[2] for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("layers", [0, 1])
def test_frozen_weights_stay_as_they_are_to_the_bit(base: Run, tmp_path: Path, layers: int) -> None:
    labels_file(tmp_path, 60)
    run = classify(base, tmp_path, "run", finetune__layers=layers, optimizer__weight_decay=0.5)
    before, after = weights_of(base.path / "best"), weights_of(last_checkpoint(run.path))
    trained = {"final_norm.weight", "final_norm.bias", "class_head.weight", "class_head.bias"}
    if layers:
        trained |= {name for name in after if name.startswith("blocks.0.")}
    assert {n for n in before if not torch.equal(before[n], after[n])} == trained & set(before)
    start = Classifier(run.trained().model.shape, 3, run.config.train.seed).class_head.weight
    assert not torch.equal(after["class_head.weight"], start)
    assert moments_of(last_checkpoint(run.path)) == trained


def test_a_frozen_run_goes_on_where_it_stopped(base: Run, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    settings = {"finetune__layers": 0, "model__dropout": 0.1}
    whole = classify(base, tmp_path, "whole", **settings)
    with pytest.raises(Interrupted):
        hairpin.finetune(
            "classify",
            tmp_path / "labels.csv",
            start=base.path,
            out=tmp_path / "stopped",
            settings=finetune(**settings),
            watcher=Watching(5),
        )
    resumed = hairpin.resume(tmp_path / "stopped", watcher=Quiet())
    assert_same_history(whole, resumed)
    config = resumed.config.finetune
    assert (config.layers, config.labels) == (0, ("animal", "sea", "sky"))


def test_more_blocks_than_there_are_is_a_line(base: Run, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    with pytest.raises(ConfigError) as raised:
        classify(base, tmp_path, "run", finetune__layers=2)
    assert raised.value.problems == ("finetune.layers: 2 blocks were asked for and there are 1",)
    assert not (tmp_path / "run").exists()


def test_a_base_whose_head_is_not_tied_is_classified_as_well(tmp_path: Path, base: Run) -> None:
    """Its head for tokens has no part in it: no gradient, no moments."""
    from helpers import text_file, tiny

    labels_file(tmp_path, 60)
    untied = hairpin.train(
        text_file(tmp_path),
        out=tmp_path / "untied",
        settings=tiny(model__tied=False, model__context=48, train__tokens_per_update=96),
        watcher=Quiet(),
    )
    run = classify(untied, tmp_path, "run")
    before, after = weights_of(untied.path / "best"), weights_of(last_checkpoint(run.path))
    assert torch.equal(before["head.weight"], after["head.weight"])
    assert "head.weight" not in moments_of(last_checkpoint(run.path))
    manifest = json.loads((run.path / "best" / "manifest.json").read_text(encoding="utf-8"))
    assert run.classifier().weights == f"best weights, update {manifest['step']}"
