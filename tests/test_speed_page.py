import numpy as np
import pytest
import torch

from benchmarks.speed.page import agreement_lines, page
from benchmarks.speed.peers import ARMS, CHECKED, in_turn
from benchmarks.speed.processes import nudged
from benchmarks.speed.products import attention_products, matrix_products
from benchmarks.speed.results import Agreement, Row, Workload, agreed, largest_gap, ratios, spread
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape

SHAPE = Shape(10, 4, 2, 2, 6)  # vocabulary, context, layers, heads, width


def row(name: str, precision: str, tokens_per_second: list[float], **changes: object) -> Row:
    fields = {
        "name": name, "network": "gpt2", "precision": precision, "is_ours": False,
        "is_same_network": True, "tokens_per_second": tokens_per_second,
        "update_seconds": [100 / pace for pace in tokens_per_second],
        "start_seconds": [30.0] + [5.0] * (len(tokens_per_second) - 1),
        "peak_bytes": [10**9] * len(tokens_per_second), "losses": [3.0, 2.0],
    }  # fmt: skip
    return Row(**(fields | changes))  # type: ignore[arg-type]


def written(*rows: Row) -> str:
    ceilings = {"float32": ([400.0, 400.0], [320.0, 320.0]), "bfloat16": ([800.0] * 2, [800.0] * 2)}
    workload = Workload("a machine", 2, list(rows), ceilings)
    return page({"tiny": workload}, {"tiny": (SHAPE, 3)}, [])


def cells(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


OURS = row("hairpin, float32", "float32", [200.0, 210.0], is_ours=True)
OUR_HALF = row("hairpin, bfloat16", "bfloat16", [400.0, 300.0], is_ours=True, losses=[3.0, 2.01])


def test_products_by_hand() -> None:
    # 3 sequences of 4 tokens: 12 rows. Query, key and value at once are a matrix of 18 × 6.
    products = matrix_products(SHAPE, 3)
    assert products[:3] == [(12, 6, 18, 2), (12, 18, 6, 2), (18, 12, 6, 2)]
    assert products[-3:] == [(12, 6, 10, 1), (12, 10, 6, 1), (10, 12, 6, 1)]
    assert len(products) == 15


def test_products_are_all_that_the_parameters_take() -> None:
    with_gradients = 2 * sum(r * i * c * often for r, i, c, often in matrix_products(SHAPE, 3))
    blocks = [p.numel() for n, p in GPT(SHAPE).named_parameters() if p.dim() == 2 and "blocks" in n]
    assert with_gradients == 6 * 12 * (sum(blocks) + 10 * 6)


def test_attention_products_are_half_of_twelve_layers_width_context() -> None:
    products = attention_products(SHAPE, 3)
    # Six heads' scores are 4 × 4 from 3 numbers each: forward and one of the gradients, 2 layers.
    assert products == [(6, 4, 3, 4, 2.0), (6, 4, 4, 3, 4.0)]
    operations = 2 * sum(many * r * i * c * often for many, r, i, c, often in products)
    assert operations == 12 * (12 * SHAPE.layers * SHAPE.width * SHAPE.context) / 2


def test_arms_take_turns_so_that_each_is_early_as_often_as_late() -> None:
    places: dict[int, int] = {}
    for turn in range(4):
        for place, arm in enumerate(in_turn(ARMS, turn)):
            places[id(arm)] = places.get(id(arm), 0) + place
    assert set(places.values()) == {2 * (len(ARMS) - 1)}
    assert in_turn(ARMS, 0)[0] is ARMS[0]
    assert in_turn(ARMS, 1)[0] is ARMS[-1]


def test_the_check_has_everybody_whose_network_is_the_same() -> None:
    assert {arm.peer for arm in CHECKED} == {"hairpin", "book", "transformers", "lightning"}
    assert {arm.precision for arm in CHECKED} == {"float32"}


def test_ratios_are_of_the_same_turn() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0, 5.0]) == [2.0, 3.0]


def test_spread() -> None:
    assert spread([1000.0, 3000.0, 1500.0]) == "1,500 (1,000–3,000)"
    assert spread([1.234], 2) == "1.23"


def test_gap_needs_the_same_number_of_updates() -> None:
    assert largest_gap([1.0, 2.0], [1.5, 2.25]) == 0.5
    with pytest.raises(ValueError, match="shorter"):
        largest_gap([1.0, 2.0], [1.0])


def test_a_result_becomes_a_turn() -> None:
    found = row("peer", "float32", [])
    result = {
        "seconds": [2.0, 4.0, 3.0], "start_seconds": 7.0, "peak_bytes": 5, "losses": [1.0],
        "versions": {},
    }  # fmt: skip
    found.add(result, 600)
    assert found.tokens_per_second == [200.0]


def test_seconds_of_updates_have_the_cold_start_in_them() -> None:
    # 30 s until the first; then 99 updates of 0.4 s, the median of 0.5 and 0.3.
    found = row("peer", "float32", [1.0, 1.0], update_seconds=[0.5, 0.3])
    assert found.seconds_of(100) == pytest.approx(30 + 99 * 0.4)


def test_a_peer_in_float32_is_held_against_both() -> None:
    text = written(OURS, OUR_HALF, row("peer", "float32", [100.0, 100.0]))
    assert cells(text, "peer") == [
        "peer", "100 (100–100)", "3.50 (3.00–4.00)", "2.05 (2.00–2.10)", "25% (31%)", "1.00",
        "30.0", "5.0", "129", "0.0e+00",
    ]  # fmt: skip
    assert cells(text, "hairpin, bfloat16")[2:5] == ["", "", "44% (44%)"]
    assert cells(text, "hairpin, bfloat16")[-1] == "1.0e-02"


def test_a_peer_in_bfloat16_is_held_against_the_fastest() -> None:
    slow_half = row("hairpin, bfloat16", "bfloat16", [50.0, 50.0], is_ours=True)
    text = written(OURS, slow_half, row("peer", "bfloat16", [100.0, 100.0], losses=[3.0, 2.5]))
    assert cells(text, "peer")[2:4] == ["2.05 (2.00–2.10)", ""]
    assert cells(text, "peer")[-1] == "5.0e-01"


def test_losses_that_differ_are_shouted() -> None:
    text = written(OURS, row("peer", "float32", [100.0], losses=[3.0, 2.1]))
    assert cells(text, "peer")[-1] == "**1.0e-01: NOT THE SAME**"
    lines = agreement_lines([Agreement("peer", "book", 20, 0.1, 9.0, 8.0)])
    assert "DO NOT AGREE" in "\n".join(lines)
    lines = agreement_lines([Agreement("peer", "book", 20, 1e-5, 9.0, 8.0)])
    assert "All within 1e-04" in "\n".join(lines)


def test_a_check_that_hairpin_itself_fails_tells_nothing() -> None:
    rows = [
        Agreement("peer", "gpt2", 20, 3e-4, 9.0, 8.0),
        Agreement("hairpin", "gpt2", 20, 8e-4, 9.0, 8.0, is_yardstick=True),
    ]
    assert "TELLS NOTHING" in "\n".join(agreement_lines(rows))
    assert not agreed(rows)


def test_a_check_without_a_peer_is_no_agreement() -> None:
    yardstick = Agreement("hairpin", "gpt2", 20, 1e-6, 9.0, 8.0, is_yardstick=True)
    assert not agreed([])
    assert not agreed([yardstick])
    assert agreed([yardstick, Agreement("peer", "gpt2", 20, 1e-6, 9.0, 8.0)])
    text = "\n".join(agreement_lines([Agreement("the book's loop", "book", 20, 0.0, 9.0, 8.0)]))
    assert "Not checked, because it failed: transformers Trainer (GPT-2), Lightning" in text
    assert "NOTHING WAS COMPARED" in "\n".join(agreement_lines([yardstick]))


def test_nudged_weights_are_the_neighbours() -> None:
    before = torch.tensor([1.0, -2.0, 0.5, 3.0])
    after = nudged({"weight": before})["weight"]
    steps = np.spacing(before.abs().numpy())
    moved = (after - before).abs().numpy()
    # Below a power of two the next number is half as far.
    assert all(m in (s, s / 2) for m, s in zip(moved, steps, strict=True))


def test_a_peer_that_failed_is_named_with_its_reason() -> None:
    text = written(OURS, row("peer", "float32", [], failure="took more than 600 seconds"))
    assert "- Left out: peer: took more than 600 seconds." in text
    assert "| peer |" not in text


def test_another_network_has_no_gap() -> None:
    text = written(OURS, row("peer", "float32", [100.0], is_same_network=False, losses=[1.0, 1.0]))
    assert cells(text, "peer")[-1] == "another network"
