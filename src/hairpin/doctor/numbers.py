"""Compare a device's numbers with those of plain float64 operations on the CPU.

Losses, every gradient, updates, the most likely tokens. A device, or a fast path on the CPU, that
computes wrong numbers still trains, only worse, and reports no error.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hairpin.config.settings import Optimizer
from hairpin.data.batches import IGNORED
from hairpin.doctor.findings import Finding
from hairpin.doctor.plain import plain_adamw, plain_logits, plain_loss, plain_muon
from hairpin.errors import one_line
from hairpin.machine.numerics import Numerics
from hairpin.model.architectures import ARCHITECTURES
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import build_optimizer, step_unless

# The context exceeds one query block of the CPU's attention, the vocabulary is not a multiple of
# what output heads are padded to, and some targets are ignored.
_VOCABULARY, _CONTEXT, _LAYERS, _HEADS, _WIDTH = 211, 160, 2, 2, 32
SHAPES = {
    name: Shape.default(name, _VOCABULARY, _CONTEXT, _LAYERS, _HEADS, _WIDTH)
    for name in ARCHITECTURES
}
_SEQUENCES = 3
_DEVIATION = 0.08  # of weights: large enough that attention is far from uniform

# Relative errors of the loss, and of each gradient by its norm. A float32 number is rounded by
# 6e-8, and a gradient here is some thousand roundings away from its inputs, which mostly cancel:
# 1e-6 is usual, and a hundred times that is a fault. One rounding of bfloat16 is 2e-3, of float16
# and TF32 2.4e-4 (7 and 10 bits after the point): on the CPU this gives 1e-2 to 2e-2 and 1e-3 to
# 3e-3, the most in the weights of qwen3's query norms, whose gradients are sums that nearly cancel.
# The limit is two to three times that: a wrong sign, mask or factor exceeds it, and float32 finds
# smaller faults.
LIMITS = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}
# Relative errors of how far three updates move a weight: a difference of two rounded numbers.
# Muon's five iterations amplify bfloat16's roundings to 3e-2 to 4e-2.
_UPDATE_LIMITS = {"float32": 1e-3, "bfloat16": 0.1}
_UPDATES = 3
_LR = 0.01
_DIVISOR = 4.0
# How far the score of the generated token may be below the highest and count as a tie.
_TIE = 1e-3
_TOKENS = 24
# Rows, columns and inner size of a product as large as GPT-2's logits for nine sequences, for which
# PyTorch's MPS was wrong: https://github.com/pytorch/pytorch/issues/109457
_LARGE = (9 * 1024, 50_304, 64)
_LOSS_SCALE = 1024.0  # for float16, in which gradients would underflow


@dataclass(frozen=True)
class TestBatch:
    """A network with fixed weights and ids, and its loss and gradients in plain float64.

    Args:
        shape: the network's.
        weights: by name, float32.
        inputs, targets: ids [sequences, context].
        loss: mean nats.
        gradients: by name, float64.
    """

    shape: Shape
    weights: Mapping[str, Tensor]
    inputs: Tensor
    targets: Tensor
    loss: float
    gradients: Mapping[str, Tensor]

    def model(self, device: str) -> GPT:
        """Build the network with these weights on a device."""
        model = GPT(self.shape)
        model.load_state_dict(self.weights)
        return model.to(device)


def make_sample(architecture: str) -> TestBatch:
    """Build the sample of one architecture; always the same."""
    shape, generator = SHAPES[architecture], torch.Generator().manual_seed(7)
    weights = {
        name: torch.empty_like(value).normal_(
            1.0 if name.endswith("norm.weight") else 0.0, _DEVIATION, generator=generator
        )
        for name, value in GPT(shape).named_parameters()
    }
    ids = torch.randint(0, shape.vocabulary, (_SEQUENCES, shape.context + 1), generator=generator)
    inputs, targets = ids[:, :-1], ids[:, 1:].clone()
    targets[0, ::5] = IGNORED
    exact = {name: value.double().requires_grad_() for name, value in weights.items()}
    loss = plain_loss(shape, exact, inputs, targets)
    gradients = dict(zip(exact, torch.autograd.grad(loss, list(exact.values())), strict=True))
    return TestBatch(shape, weights, inputs, targets, float(loss.detach()), gradients)


def check_numbers(device: str, precisions: list[str]) -> Iterator[Finding]:
    """Compare everything; a finding for each architecture in each precision, and for each part.

    Args:
        device: the device to check.
        precisions: the formats in which matrices are multiplied.
    """
    samples = {name: make_sample(name) for name in SHAPES}
    for precision in precisions:
        numerics = Numerics(device, precision)
        with _configured(numerics):
            for name, sample in samples.items():
                what = f"{name} in {precision} on {device}"
                yield _compared(what, partial(compare_gradients, sample, numerics))
    exact = Numerics(device)
    with _configured(exact):
        if device != "cpu":
            yield _compared(f"large product on {device}", partial(compare_large_product, device))
        move = partial(compare_updates, samples["modern"], device=device)
        for kind in ("adamw", "muon"):
            yield _compared(f"{kind} on {device}", partial(move, kind))
        if "bfloat16" in precisions:  # Muon multiplies in bfloat16 if the run does
            half = partial(move, "muon", precision="bfloat16")
            yield _compared(f"muon in bfloat16 on {device}", half)
        yield _compared(
            f"skipped update on {device}", partial(compare_skipped, samples["modern"], device)
        )
        for name, sample in samples.items():
            yield _compared(f"{name} generating on {device}", partial(compare_text, sample, device))
    for precision in precisions:
        numerics = Numerics(device, precision)
        with _configured(numerics):
            what = f"same bits twice in {precision} on {device}"
            yield _compared(what, partial(compare_bits, samples["gpt2"], numerics))


def compare_gradients(
    sample: TestBatch, numerics: Numerics, prepare: Callable[[GPT], None] = lambda model: None
) -> tuple[bool, str]:
    """Check that loss and gradients agree, and tell by how much.

    Args:
        sample: the network and its exact results.
        numerics: device and precision.
        prepare: called with the model first, to compile it.
    """
    model = sample.model(numerics.device)
    prepare(model)
    loss, gradients = _computed(model, sample, numerics)
    limit = LIMITS[numerics.precision]
    errors = {"the loss": abs(loss - sample.loss) / sample.loss}
    errors |= {name: _error(gradients[name], exact) for name, exact in sample.gradients.items()}
    wrong = {name: error for name, error in errors.items() if not error <= limit}
    if not wrong:
        worst = max(errors.values())
        return True, f"loss and {len(gradients)} gradients within {worst:.1e} (limit {limit:.0e})"
    return False, _listed(wrong, limit)


def compare_updates(
    sample: TestBatch, kind: str, device: str, precision: str = "float32"
) -> tuple[bool, str]:
    """Check that a few updates with given gradients move the weights as they should; `precision` is
    that of the optimizer's own products.
    """
    limit = _UPDATE_LIMITS[precision]
    model = sample.model(device)
    optimizer = build_optimizer(model, Optimizer(kind=kind), precision=precision)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    exact = {name: value.double() for name, value in sample.weights.items()}
    states: dict[str, dict[str, Tensor]] = {name: {} for name in exact}
    go, divisor = torch.zeros((), dtype=torch.bool, device=device), torch.tensor(_DIVISOR)
    for update in range(1, _UPDATES + 1):
        gradients = {name: value * update for name, value in sample.gradients.items()}
        _give(model, gradients)
        step_unless(go, optimizer, _LR, divisor.to(device))
        for group in optimizer.param_groups:
            for name in (names[id(parameter)] for parameter in group["params"]):
                given = gradients[name].float().double() / _DIVISOR
                weight, state = exact[name], states[name]
                exact[name] = (
                    plain_muon(weight, given, state, group)
                    if group.get("muon")
                    else plain_adamw(weight, given, state, group, update)
                )
    errors = {
        name: _error(
            parameter.detach().cpu().double() - sample.weights[name],
            exact[name] - sample.weights[name],
        )
        for name, parameter in model.named_parameters()
    }
    wrong = {name: error for name, error in errors.items() if not error <= limit}
    if wrong:
        return False, _listed(wrong, limit)
    worst = max(errors.values())
    return True, f"{_UPDATES} updates within {worst:.1e} (limit {limit:.0e})"


def compare_skipped(sample: TestBatch, device: str) -> tuple[bool, str]:
    """Check that an update that the guard skips changes nothing."""
    halted = torch.ones((), dtype=torch.bool, device=device)
    for kind in ("adamw", "muon"):
        model = sample.model(device)
        optimizer = build_optimizer(model, Optimizer(kind=kind))
        _give(model, sample.gradients)
        step_unless(halted, optimizer, _LR)
        for name, parameter in model.named_parameters():
            if not torch.equal(parameter.detach().cpu(), sample.weights[name]):
                return False, f"{kind} changed {name} in a skipped update"
    return True, "a skipped update changes no bit"


def compare_text(sample: TestBatch, device: str) -> tuple[bool, str]:
    """Check that the most likely token is generated at temperature 0; either one if two tie."""
    model = sample.model(device).eval()
    prompt = sample.inputs[0, :8].tolist()
    tokens = generate(model, prompt, Sampling(temperature=0.0), seed=0)
    written = prompt + [next(tokens) for _ in range(_TOKENS)]
    exact = {name: value.double() for name, value in sample.weights.items()}
    logits_TV = plain_logits(sample.shape, exact, torch.tensor([written]))[0]
    for place in range(len(prompt), len(written)):
        scores_V = logits_TV[place - 1]
        if not float(scores_V.max() - scores_V[written[place]]) <= _TIE:
            number = place - len(prompt) + 1
            return False, f"token {number} at temperature 0 is not the most likely"
    return True, f"{_TOKENS} tokens at temperature 0 are the most likely"


def compare_large_product(device: str, size: tuple[int, int, int] = _LARGE) -> tuple[bool, str]:
    """Check the first and last rows of a product of [rows, inner] and [inner, columns].

    Args:
        device: the device to check.
        size: rows, columns, inner.
    """
    (rows, columns, inner), generator = size, torch.Generator().manual_seed(7)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(columns, inner, generator=generator)
    out = nn.functional.linear(left.to(device), right.to(device))
    for part in (slice(4), slice(rows - 4, rows)):
        exact = left[part].double() @ right.double().T
        error = _error(out[part].cpu().double(), exact)
        if not error <= LIMITS["float32"]:
            return False, _listed({f"rows from {part.start or 0}": error}, LIMITS["float32"])
    return True, f"{rows:,} by {columns:,} numbers, the first and the last rows"


def compare_bits(sample: TestBatch, numerics: Numerics) -> tuple[bool | None, str]:
    """Check that repeating an update gives the same bits; None: it does not, which is no error."""
    ends = []
    for _ in range(2):
        model = sample.model(numerics.device)
        _computed(model, sample, numerics)
        optimizer = build_optimizer(model, Optimizer())
        step_unless(torch.zeros((), dtype=torch.bool, device=numerics.device), optimizer, _LR)
        ends.append([parameter.detach().cpu() for parameter in model.parameters()])
    if all(map(torch.equal, *ends)):
        return True, "yes"
    return None, "no: a resumed run may end in different bits than an uninterrupted one"


def _computed(model: GPT, sample: TestBatch, numerics: Numerics) -> tuple[float, dict[str, Tensor]]:
    """Return the mean loss, and gradients by name in float64 on the CPU; the model keeps them
    too.
    """
    scale = _LOSS_SCALE if numerics.precision == "float16" else 1.0
    inputs, targets = numerics.to_device(sample.inputs), numerics.to_device(sample.targets)
    with numerics.autocast():
        loss_sum, count = model(inputs, targets)
        with numerics.full_precision():
            (loss_sum / count * scale).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(scale)
    gradients = {name: _gradient(value) for name, value in model.named_parameters()}
    return float(loss_sum.detach()) / int(count), gradients


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.full(parameter.shape, torch.nan, dtype=torch.float64)
    return parameter.grad.cpu().double()  # moved first: MPS has no float64


def _give(model: GPT, gradients: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].float().to(parameter.device)


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def _listed(wrong: Mapping[str, float], limit: float) -> str:
    worst = sorted(wrong, key=lambda name: (wrong[name] == wrong[name], -wrong[name]))
    named = ", ".join(f"{name} off by {wrong[name]:.1%}" for name in worst[:3])
    more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
    return f"wrong results: {named}{more} (limit {limit:.0e})"


def _compared(what: str, compare: Callable[[], tuple[bool | None, str]]) -> Finding:
    """Turn the result of a comparison, or an exception that it raises, into a finding."""
    try:
        agrees, text = compare()
    except Exception as error:  # a device's libraries may raise anything
        line = next(iter(str(error).splitlines()), "")
        return Finding(what, "problem", one_line(f"{type(error).__name__}: {line}"), is_wrong=True)
    if agrees is None:
        return Finding(what, "note", text)
    return Finding(what, "ok" if agrees else "problem", text, is_wrong=not agrees)


@contextmanager
def _configured(numerics: Numerics) -> Iterator[None]:
    """Configure PyTorch for the whole process as a run does, and restore it afterwards."""
    precision = torch.get_float32_matmul_precision()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    numerics.configure(deterministic=False)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(is_deterministic)
