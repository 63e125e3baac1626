"""Tests of every record of traits.

test_doctor.py holds their losses, gradients and texts to plain operations in float64.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hairpin.config.load import build_config
from hairpin.doctor.plain import plain_logits
from hairpin.errors import ConfigError
from hairpin.model.architectures import ARCHITECTURES
from hairpin.model.decode import Decoder
from hairpin.model.gpt import GPT
from hairpin.model.kernels import choice
from hairpin.model.shape import Shape
from hairpin.planning.sizes import count_parameters
from hairpin.weights.model_config import config_json, read_shape
from hairpin.weights.transformers_weights import (
    from_transformers,
    misfit,
    plain_names,
    to_transformers,
)
from helpers import lively_model, random_ids

SHAPES = [
    Shape.default(name, 80, 24, 2, 2, 32, tied=tied)
    for name, traits in ARCHITECTURES.items()
    for tied in (True, False)
    if tied == traits.tied or "tied" in traits.options
]
every_shape = pytest.mark.parametrize(
    "shape", SHAPES, ids=lambda shape: f"{shape.architecture}{'-tied' * shape.tied}"
)


@every_shape
def test_scores_are_those_of_plain_operations_and_of_one_token_at_a_time(shape: Shape) -> None:
    model, inputs = lively_model(shape), random_ids(2, 24)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(shape).total
    exact = plain_logits(shape, {n: t.double() for n, t in model.state_dict().items()}, inputs)
    torch.testing.assert_close(model.logits(inputs).double(), exact, atol=1e-4, rtol=1e-5)
    decoder = Decoder(model)
    cache = decoder.empty_cache()
    scores = torch.stack([decoder.logits(int(token), cache).clone() for token in inputs[0]])
    torch.testing.assert_close(scores.double(), exact[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_gradients_by_hand_are_those_of_the_plain_operations(
    architecture: str, precision: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU and a compiler are given, and what a CPU does."""
    found = []
    for by_hand in (True, False):
        monkeypatch.setattr(choice, "uses_own_backward", lambda x, answer=by_hand: answer)
        model = GPT(Shape.default(architecture, 80, 24, 3, 2, 32))
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                draw = torch.Generator().manual_seed(number)
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = model(random_ids(2, 24), random_ids(2, 24, seed=1))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None
        assert (one - other).norm() <= most * other.norm()


@every_shape
def test_weights_and_config_json_come_back_from_transformers(shape: Shape, tmp_path: Path) -> None:
    state = lively_model(shape).state_dict()
    plain = plain_names(to_transformers(state, shape), shape)
    assert misfit(plain, {name: tensor.shape for name, tensor in state.items()}, shape) is None
    back = from_transformers(plain, shape)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    (tmp_path / "config.json").write_text(json.dumps(config_json(shape)))
    assert read_shape(tmp_path / "config.json")[0] == shape


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_config_may_set_the_options_of_its_architecture_and_no_others(architecture: str) -> None:
    options: dict[str, Any] = {
        "bias": True, "qkv_bias": True, "tied": True, "dropout": 0.1, "initialisation": "pytorch",
    }  # fmt: skip
    allowed = ARCHITECTURES[architecture].options
    off = {"model.bias": False, "model.qkv_bias": False, "model.tied": False}
    flags = off | {"model.architecture": architecture}
    config = build_config(flags=flags | {f"model.{name}": options[name] for name in allowed})
    assert all(getattr(config.model, name) == options[name] for name in allowed)
    for name in options.keys() - allowed:
        with pytest.raises(ConfigError, match=f"model.{name}: "):
            build_config(flags=flags | {f"model.{name}": options[name]})


def test_a_parameter_of_two_architectures_begins_with_the_same_values_if_both_draw_alike() -> None:
    drawn = [
        dict(GPT(Shape.default(name, 80, 24, 2, 2, 32), seed=4).named_parameters())
        for name, traits in ARCHITECTURES.items()
        if traits.initialisation == "identity"
    ]
    for one in drawn:
        for name in one.keys() & drawn[0].keys():
            if one[name].shape == drawn[0][name].shape:
                assert torch.equal(one[name], drawn[0][name]), name
