"""Names that a user's own code registers: what they may be, what runs when, what is refused."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hairpin
from hairpin.config.load import build_config
from hairpin.config.settings import Optimizer as OptimizerSettings
from hairpin.errors import ConfigError, Interrupted, PluginError, RunError, UserError
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    step_unless,
)
from hairpin.plugins import files as plugin_files
from hairpin.plugins import registry as plugins
from hairpin.run import Run
from hairpin.schedules.curves import Schedule
from helpers import (
    Hairpin,
    Watching,
    assert_same_end,
    assert_same_history,
    last_checkpoint,
    of_kind,
    text_file,
    tiny,
    weights_of,
)
from test_incidents import NAN, Bad

pytestmark = pytest.mark.usefixtures("no_plots")

EXAMPLES = Path(__file__).parents[1] / "examples" / "plugins"
# An example's file, and the setting that takes its name.
SHIPPED = {
    "quadratic": ("schedule.kind", "quadratic"),
    "lion": ("optimizer.kind", "lion"),
    "convolution": ("model.architecture", "gated-convolution"),
    "smoothing": ("train.loss", "label-smoothing"),
}
SETTINGS = tiny(train__updates=24, schedule__peak_lr=0.003)


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    """What one test registers no other one sees."""
    yield
    for found in list(plugins.REGISTERED.values()):
        plugins.forget(found)
    plugin_files._LOADED.clear()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return text_file(tmp_path)


def train(text: Path, out: str, plugin: Path, watcher: Any = None, **settings: Any) -> Run:
    return hairpin.train(
        text,
        out=text.parent / out,
        settings=SETTINGS | settings,
        plugin=[plugin],
        watcher=watcher or Watching(),
    )


def a_plugin(folder: Path, body: str, name: str = "mine.py") -> Path:
    """A plugin file; `body` is below the imports, from line 8 on."""
    path = folder / name
    path.write_text(
        "import math\n"
        "import torch\n"
        "from torch import nn\n"
        "from torch.nn import functional as F\n"
        "from hairpin.plugins.registry import *\n"
        "from hairpin.plugins.registry import register_loss, register_model\n"
        "\n" + body,
        encoding="utf-8",
    )
    return path


# --- the examples ---


@pytest.mark.parametrize("name", SHIPPED)
def test_an_example_trains_and_resumes_in_the_same_bits(text: Path, name: str) -> None:
    plugin, (key, value) = EXAMPLES / f"{name}.py", SHIPPED[name]
    settings = {key: value, "model.dropout": 0.0}
    whole = train(text, "whole", plugin, **settings)
    with pytest.raises(Interrupted):
        train(text, "stopped", plugin, Watching(stop_after_update=13), **settings)
    for found in list(plugins.REGISTERED.values()):  # as in another process
        plugins.forget(found)
    plugin_files._LOADED.clear()
    resumed = hairpin.resume(text.parent / "stopped", plugin=[plugin], watcher=Watching())
    assert_same_history(whole, resumed)
    losses = [event["loss"] for event in of_kind(whole.record(), "update")]
    assert len(losses) == 24 and sum(losses[-4:]) < sum(losses[:4])
    (kept,) = whole.config.plugins
    assert kept.path == str(plugin)
    assert kept.sha256 == hashlib.sha256(plugin.read_bytes()).hexdigest()


def test_the_examples_are_what_they_say(text: Path) -> None:
    plugin_files.load_plugins(EXAMPLES / f"{name}.py" for name in SHIPPED)
    curve = Schedule("quadratic", updates=101, warmup=1, peak_lr=1.0, min_lr=0.0)
    assert [curve(1), curve(100)] == [1.0, 0.0]
    assert curve(34) == pytest.approx((1 - 33 / 99) ** 2)

    losses = plugins.REGISTERED["loss", "label-smoothing"].make
    logits, targets = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 3))
    logs = logits.log_softmax(-1)
    by_hand = -0.9 * logs.gather(-1, targets[..., None])[..., 0] - 0.1 * logs.mean(-1)
    assert torch.allclose(losses(logits, targets), by_hand, atol=1e-6)

    network = plugins.REGISTERED["model", "gated-convolution"].make(Shape(50, 32, 3, 1, 8))
    ids = torch.randint(0, 50, (1, 32))
    changed = ids.clone()
    changed[0, 20] = (ids[0, 20] + 1) % 50
    differs = (network.logits(ids) != network.logits(changed)).any(-1)[0]
    assert not differs[:20].any() and differs[20:].any(), "no token sees those after it"


def test_lion_is_the_papers(text: Path) -> None:
    plugin_files.load_plugins([EXAMPLES / "lion.py"])
    model = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer(
        model, OptimizerSettings(kind="lion", beta1=0.9, beta2=0.99, weight_decay=0.5)
    )
    weight, momentum = model.weight.detach().double(), torch.zeros(2, 3).double()
    for seed in range(4):
        gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
        model.weight.grad = gradient.clone()
        step_unless(torch.tensor(False), optimizer, 0.01)
        # Chen et al. 2023, algorithm 2
        way = (0.9 * momentum + 0.1 * gradient).sign()
        weight = weight - 0.01 * (way + 0.5 * weight)
        momentum = 0.99 * momentum + 0.01 * gradient
    assert torch.allclose(model.weight.double(), weight, atol=1e-6)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_plugin_of_the_command_line_trains_and_resumes(
    hairpin: Hairpin, tmp_path: Path, name: str
) -> None:
    plugin, (key, value) = EXAMPLES / f"{name}.py", SHIPPED[name]
    settings = [f"--set={k}={v}" for k, v in (SETTINGS | {key: value, "train.updates": 6}).items()]
    done = hairpin("train", text_file(tmp_path), "--out", "run", *settings, "--plugin", plugin)
    assert done.code == 0, done.err
    assert hairpin("resume", "run", "--plugin", plugin).code == 0
    assert hairpin("sample", "run", "--prompt", "the", "--plugin", plugin).code == 0
    assert hairpin("evaluate", "run", "--plugin", plugin).code == 0
    plan = hairpin("plan", "text.txt", *settings, "--plugin", plugin, "--no-probe")
    assert plan.code == 0, plan.err
    # What only reads runs needs no plugin.
    for found in list(plugins.REGISTERED.values()):
        plugins.forget(found)
    plugin_files._LOADED.clear()
    for command in (("report", "run"), ("runs",), ("verify", "run")):
        done = hairpin(*command)
        assert done.code == 0, done.err


def test_a_schedule_is_drawn(hairpin: Hairpin) -> None:
    plugin = EXAMPLES / "quadratic.py"
    done = hairpin("schedule", "--updates", 100, "--schedule.kind", "quadratic", "--plugin", plugin)
    assert done.code == 0 and "quadratic" in done.out


@pytest.mark.parametrize("keyword", ["length_independent_updates", "settled"])
def test_a_schedule_says_what_does_not_depend_on_the_runs_length(keyword: str) -> None:
    given: dict[str, Any] = {keyword: lambda schedule: schedule.updates - 3}
    plugins.register_schedule("mine", lambda schedule, update: schedule.peak_lr, **given)
    assert Schedule("mine", updates=10, warmup=0, peak_lr=1.0).length_independent_updates == 7


# --- an update that is called off ---


class Counting(torch.optim.SGD):
    """SGD that also remembers numbers, for parameters and for a group."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            group["distance"] = group.get("distance", 0.5) * 1.25
            for parameter in group["params"]:
                self.state[parameter]["seen"] = self.state[parameter].get("seen", 0) + 1


def counting(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Counting:
    for group in groups:
        group["distance"] = 0.5
    return Counting(groups, lr=0.0, momentum=0.9)


def test_an_update_that_is_not_finite_leaves_everything_as_it_was() -> None:
    plugins.register_optimizer("counting", counting)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = build_optimizer(model, OptimizerSettings(kind="counting", weight_decay=0.0))

    def step(halted: bool, factor: float) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, factor)
        step_unless(torch.tensor(halted), optimizer, 0.1, torch.tensor(2.0))

    def all_of_it() -> dict[str, Any]:
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        return weights | {k: t.clone() for k, t in optimizer_tensors(model, optimizer).items()}

    before = all_of_it()
    step(True, math.nan)  # before there is any state
    assert_equal(all_of_it(), before)
    step(False, 1.0)
    after = all_of_it()
    for name in before:
        if not name.startswith("group:"):  # 1.0 / 2 × 0.1, momentum and all
            assert torch.allclose(after[name], before[name] - 0.05, atol=1e-7)
    assert (
        after["seen:int.0.weight"].item() == 1 and after["group:distance:float.0"].item() == 0.625
    )
    step(True, math.nan)
    assert_equal(all_of_it(), after)


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_numbers_that_an_optimizer_remembers_come_back_as_they_were() -> None:
    plugins.register_optimizer("counting", counting)
    model = nn.Linear(4, 3)
    optimizer = build_optimizer(model, OptimizerSettings(kind="counting"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    step_unless(torch.tensor(False), optimizer, 0.1)
    other = build_optimizer(model, OptimizerSettings(kind="counting"))
    load_optimizer_tensors(model, other, optimizer_tensors(model, optimizer))
    assert other.param_groups[0]["distance"] == 0.625
    assert other.state[model.weight]["seen"] == 1
    assert type(other.state[model.weight]["seen"]) is int
    assert torch.equal(
        other.state[model.weight]["momentum_buffer"],
        optimizer.state[model.weight]["momentum_buffer"],
    )
    optimizer.state[model.weight]["notes"] = ["a"]
    with pytest.raises(PluginError, match=r"'notes'.*list"):
        optimizer_tensors(model, optimizer)


def test_adam_of_pytorch_resumes_as_it_would_have_gone_on() -> None:
    plugins.register_optimizer("adam", lambda groups, settings: torch.optim.Adam(groups, lr=0.0))

    def trained(model: nn.Linear, optimizer: Any, seeds: range) -> None:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            step_unless(torch.tensor(False), optimizer, 0.1)

    torch.manual_seed(0)
    whole = nn.Linear(4, 3)
    begun = nn.Linear(4, 3)
    begun.load_state_dict(whole.state_dict())
    settings = OptimizerSettings(kind="adam")
    trained(whole, build_optimizer(whole, settings), range(6))
    first = build_optimizer(begun, settings)
    trained(begun, first, range(3))
    saved = {k: t.clone() for k, t in optimizer_tensors(begun, first).items()}
    second = build_optimizer(begun, settings)
    load_optimizer_tensors(begun, second, saved)
    trained(begun, second, range(3, 6))
    assert torch.equal(whole.weight, begun.weight)


def test_a_run_with_a_plugins_optimizer_skips_a_bad_update(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bad([21], NAN).plant(monkeypatch)
    settings = {"optimizer.kind": "lion", "guard.on_non_finite": "skip"}
    run = train(text, "run", EXAMPLES / "lion.py", **settings)
    assert [event["update"] for event in of_kind(run.record(), "skip")] == [5]
    assert all(
        torch.isfinite(tensor).all() for tensor in weights_of(last_checkpoint(run.path)).values()
    )
    checkpoint = json.loads((last_checkpoint(run.path) / "state.json").read_text(encoding="utf-8"))
    assert checkpoint["update"] == 24
    from safetensors.torch import load_file

    kept = load_file(last_checkpoint(run.path) / "optimizer.safetensors")
    steps = {int(tensor) for name, tensor in kept.items() if name.startswith("steps:int.")}
    assert steps == {23}, "the skipped update was no step"


# --- what runs when ---


def test_code_runs_only_where_it_is_named(hairpin: Hairpin, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    ran = tmp_path / "ran"
    plugin = a_plugin(
        tmp_path,
        f"with open({str(ran)!r}, 'a') as file:\n    file.write('x')\n"
        "register_schedule('mine', lambda s, u: s.between(1 - s.progress(u)))\n",
    )
    settings = [f"--set={k}={v}" for k, v in (SETTINGS | {"schedule.kind": "mine"}).items()]
    assert hairpin("train", text, "--out", "run", *settings, "--plugin", plugin).code == 0
    assert ran.read_text() == "x"
    for found in list(plugins.REGISTERED.values()):
        plugins.forget(found)
    plugin_files._LOADED.clear()
    for command in (
        ("resume", "run"),
        ("train", "--config", "run/config.toml", "--out", "again"),
        ("schedule", "--config", "run/config.toml"),
        ("report", "run"),
        ("runs",),
        ("verify", "run"),
        ("sample", "run", "--prompt", "x"),
        ("evaluate", "run"),
    ):
        hairpin(*command)
    assert ran.read_text() == "x"


def test_a_resume_without_the_plugin_says_what_to_type(hairpin: Hairpin, tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, "register_schedule('mine', lambda s, u: s.peak_lr)\n")
    with pytest.raises(Interrupted):
        train(text_file(tmp_path), "run", plugin, Watching(5), **{"schedule.kind": "mine"})
    plugins.forget(plugins.REGISTERED["schedule", "mine"])
    plugin_files._LOADED.clear()
    line = hairpin("resume", "run").refusal
    assert f"`hairpin resume run --plugin {plugin}`" in line
    line = hairpin("train", "--config", "run/config.toml", "--out", "again").refusal
    assert f"--plugin {plugin}" in line
    assert not (tmp_path / "again").exists()


def test_a_plugin_that_has_changed_is_refused_unless_it_is_accepted(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    body = "register_schedule('mine', lambda s, u: s.peak_lr{})\n"
    plugin = a_plugin(tmp_path, body.format(""))
    with pytest.raises(Interrupted):
        train(text_file(tmp_path), "run", plugin, Watching(5), **{"schedule.kind": "mine"})
    a_plugin(tmp_path, body.format(" * (1 if u < 10 else 0.5)"))
    line = hairpin("resume", "run", "--plugin", plugin).refusal
    assert "not the plugin that the run was made with" in line and "--accept-plugin" in line
    done = hairpin("resume", "run", "--plugin", plugin, "--accept-plugin")
    assert done.code == 0, done.err
    assert "bits will differ" in done.out
    rates = [e["lr"] for e in of_kind(Run(_directory(tmp_path / "run")).record(), "update")]
    assert rates[10:] == [0.0015] * 14 and rates[4:10] == [0.003] * 6
    assert hairpin("resume", "run", "--plugin", plugin).code == 0  # that is the run's now


def _directory(path: Path) -> Any:
    return hairpin.load(path).directory


def test_a_plugin_may_move(text: Path, tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, "register_schedule('mine', lambda s, u: s.peak_lr)\n")
    settings = {"schedule.kind": "mine"}
    whole = train(text, "whole", plugin, **settings)
    with pytest.raises(Interrupted):
        train(text, "run", plugin, Watching(9), **settings)
    plugins.forget(plugins.REGISTERED["schedule", "mine"])
    plugin_files._LOADED.clear()
    moved = shutil.move(plugin, tmp_path / "moved.py")
    watcher = Watching()
    assert_same_end(whole, hairpin.resume(text.parent / "run", plugin=[moved], watcher=watcher))
    assert not watcher.notices


def test_a_script_may_register_for_itself(text: Path) -> None:
    plugins.register_schedule("mine", lambda schedule, update: schedule.peak_lr)
    run = hairpin.train(
        text,
        out=text.parent / "run",
        settings=SETTINGS | {"schedule.kind": "mine"},
        watcher=Watching(),
    )
    (kept,) = run.config.plugins
    assert kept.path == __file__
    assert kept.sha256 == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def test_a_plugin_is_run_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    body = "register_schedule('mine', lambda s, u: {})\n"
    plugin = a_plugin(tmp_path, body.format("0.25"))

    def curve() -> float:
        return Schedule("mine", updates=10, warmup=0, peak_lr=1.0)(3)

    plugin_files.load_plugins([plugin, plugin])
    assert curve() == 0.25
    plugin_files.load_plugins([plugin])
    a_plugin(tmp_path, body.format("0.75"))  # as long as before, in the same second
    plugin_files.load_plugins([plugin])
    assert curve() == 0.75
    assert not (tmp_path / "__pycache__").exists()


# --- what is refused ---


@pytest.mark.parametrize(
    ("body", "line", "words"),
    [
        ("def f(:\n", 8, "not Python"),
        ("import no_such_module\n", 8, "cannot be imported: ModuleNotFoundError"),
        ("x = 1\ny = 1 / 0\n", 9, "cannot be imported: ZeroDivisionError"),
        (
            "register_schedule('cosine', lambda s, u: 1.0)\n",
            8,
            "the schedule 'cosine' is already registered",
        ),
        (
            "register_loss('cross-entropy', print)\n",
            8,
            "the loss 'cross-entropy' is already registered",
        ),
        ("register_model('gpt2', print)\n", 8, "the model 'gpt2' is already registered"),
        ("register_optimizer('muon', print)\n", 8, "the optimizer 'muon' is already registered"),
        ("\nregister_schedule('Mine Own', print)\n", 9, "'Mine Own' is not a valid name"),
        ("register_schedule('mine', 3)\n", 8, "not a function or class, but 3"),
        (
            "register_schedule('mine', print)\nregister_schedule('mine', print)\n",
            9,
            "the schedule 'mine' is already registered",
        ),
    ],
)
def test_a_plugin_that_does_not_load_is_one_line_with_its_place(
    hairpin: Hairpin, tmp_path: Path, body: str, line: int, words: str
) -> None:
    plugin = a_plugin(tmp_path, body)
    said = hairpin("schedule", "--updates", 10, "--plugin", plugin).refusal
    assert said.startswith(f"{plugin}:{line}: ") and words in said
    assert not plugins.REGISTERED, "nothing of it stays"


def test_a_plugin_that_is_none(hairpin: Hairpin, tmp_path: Path) -> None:
    said = hairpin("schedule", "--updates", 10, "--plugin", "away.py").refusal
    assert said == f"{tmp_path / 'away.py'}: the plugin cannot be read: No such file or directory"
    empty = a_plugin(tmp_path, "")
    said = hairpin("schedule", "--updates", 10, "--plugin", empty).refusal
    assert said.startswith(f"{empty}: registers nothing") and "register_schedule" in said


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("float('nan')", "gives nan as the learning rate of update"),
        ("-1e-3", "gives -0.001"),
        ("float('inf') if u > 7 else 0.1", "gives inf as the learning rate of update 8"),
        ("None", "gives None"),
        ("abs(1 / (u - 9))", "ZeroDivisionError"),
    ],
)
def test_a_schedule_with_impossible_rates(
    hairpin: Hairpin, tmp_path: Path, value: str, words: str
) -> None:
    body = f"def f(s, u):\n    return {value}\n\n\nregister_schedule('mine', f)\n"
    plugin = a_plugin(tmp_path, body)
    arguments = ("--updates", 20, "--schedule.kind", "mine", "--plugin", plugin)
    said = hairpin("schedule", *arguments).refusal
    assert said.startswith((f"{plugin}:8: ", f"{plugin}:9: ")) and words in said
    done = hairpin("train", text_file(tmp_path), "--size", "nano", "--out", "run", *arguments)
    assert done.code == 2 and words in done.err
    assert not (tmp_path / "run").exists()


MODEL = """\
class Mine(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.table = nn.Embedding(shape.vocabulary, shape.vocabulary)
        {extra}

    def forward(self, inputs, targets):
        scores = self.table(inputs).flatten(0, 1)
        losses = F.cross_entropy(scores, targets.flatten(), reduction="none")
        {give}


register_model('mine', Mine)
"""


@pytest.mark.parametrize(
    ("extra", "give", "words"),
    [
        ("pass", "return losses.sum()", "forward(inputs, targets) must return"),
        ("pass", "return losses, (targets != -100).sum()", "sum of losses is a scalar"),
        ("pass", "return losses.sum(), targets.numel()", "number of targets is a scalar"),
        ("pass", "return losses.sum(), torch.tensor(targets.numel())", "it counts 32 targets"),
        (
            "pass",
            "return losses.sum() * math.nan, (targets != -100).sum()",
            "its first loss is nan",
        ),
        ("pass", "return inputs @ targets, 1", ":17: RuntimeError"),
        ("self.double()", "pass", "table.weight is torch.float64"),
        ("self.register_buffer('mean', torch.zeros(1))", "pass", "mean is state"),
        ("shape.no_such_size", "pass", ":12: AttributeError"),
        (
            "self.logits = self.table.weight.sum",
            "return losses.sum(), (targets != -100).sum()",
            ": ",
        ),
        (
            "self.logits = lambda x: x",
            "return losses.sum(), (targets != -100).sum()",
            "logits(inputs) gives",
        ),
    ],
)
def test_a_model_that_does_not_keep_its_contract(
    hairpin: Hairpin, tmp_path: Path, extra: str, give: str, words: str
) -> None:
    plugin = a_plugin(tmp_path, MODEL.format(extra=extra, give=give))
    settings = [f"--set={k}={v}" for k, v in (SETTINGS | {"model.architecture": "mine"}).items()]
    done = hairpin("train", text_file(tmp_path), "--out", "run", *settings, "--plugin", plugin)
    (said,) = done.err.splitlines()
    assert done.code == 2 and f"{plugin}:" in said and words in said, said
    assert not (tmp_path / "run").exists()


def test_a_model_without_logits_trains_and_writes_nothing(text: Path, tmp_path: Path) -> None:
    body = MODEL.format(extra="pass", give="return losses.sum(), (targets != -100).sum()")
    plugin = a_plugin(tmp_path, body)
    run = train(text, "run", plugin, **{"model.architecture": "mine"})
    assert not of_kind(run.record(), "sample") and run.summary().updates == 24
    (planned,) = of_kind(run.record(), "plan")
    assert planned["parameters"] == 257 * 257


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("register_optimizer('mine', lambda groups, settings: None)\n", "is NoneType, not a"),
        (
            "register_optimizer('mine', lambda g, s: torch.optim.SGD(g[:1], lr=0.0))\n",
            "does not have every parameter",
        ),
        ("register_optimizer('mine', lambda g, s: torch.optim.Nothing(g))\n", ":8: AttributeError"),
        ("register_optimizer('mine', lambda g, s: torch.optim.LBFGS(g))\n", ":8: ValueError"),
    ],
)
def test_an_optimizer_that_does_not_keep_its_contract(
    hairpin: Hairpin, tmp_path: Path, body: str, words: str
) -> None:
    plugin = a_plugin(tmp_path, body)
    settings = [f"--set={k}={v}" for k, v in (SETTINGS | {"optimizer.kind": "mine"}).items()]
    done = hairpin("train", text_file(tmp_path), "--out", "run", *settings, "--plugin", plugin)
    (said,) = done.err.splitlines()
    assert done.code == 2 and f"{plugin}:8: " in said and words in said, said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("register_loss('mine', lambda l, t: l.sum())\n", ":8: the loss 'mine' gives a tensor []"),
        ("register_loss('mine', lambda l, t: l.nothing)\n", ":8: AttributeError"),
    ],
)
def test_a_loss_that_does_not_keep_its_contract(
    hairpin: Hairpin, tmp_path: Path, body: str, words: str
) -> None:
    plugin = a_plugin(tmp_path, body)
    settings = [f"--set={k}={v}" for k, v in (SETTINGS | {"train.loss": "mine"}).items()]
    done = hairpin("train", text_file(tmp_path), "--out", "run", *settings, "--plugin", plugin)
    (said,) = done.err.splitlines()
    assert done.code == 2 and words in said, said


def test_an_error_on_the_way_is_a_line_with_its_place(hairpin: Hairpin, tmp_path: Path) -> None:
    plugin = a_plugin(
        tmp_path,
        "calls = []\n\n\n"
        "def f(logits, targets):\n"
        "    calls.append(0)\n"
        "    if len(calls) > 20:\n"
        "        raise RuntimeError('no more\\nsecond line')\n"
        "    return F.cross_entropy(logits.transpose(1, 2), targets, reduction='none')\n\n\n"
        "register_loss('mine', f)\n",
    )
    settings = [f"--set={k}={v}" for k, v in (SETTINGS | {"train.loss": "mine"}).items()]
    done = hairpin("train", text_file(tmp_path), "--out", "run", *settings, "--plugin", plugin)
    assert done.code == 2 and done.err == f"hairpin: {plugin}:14: RuntimeError: no more\n"
    end = of_kind(Run(_directory(tmp_path / "run")).record(), "end")[-1]
    assert end["status"] == "failed" and "RuntimeError" in end["reason"]


def test_an_error_of_hairpins_own_stays_a_traceback(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.register_schedule("mine", lambda schedule, update: schedule.peak_lr)

    monkeypatch.setattr("hairpin.training.train_run.train", math.sqrt)
    with pytest.raises(TypeError):
        hairpin.train(text, out=text.parent / "run", settings=SETTINGS, watcher=Watching())


@pytest.mark.parametrize("key", sorted(plugins.KEYS.values()))
def test_a_name_that_nothing_has_registered_names_the_nearest(key: str) -> None:
    (kind,) = [kind for kind, its in plugins.KEYS.items() if its == key]
    name = plugins.BUILT_IN[kind][0]
    with pytest.raises(ConfigError) as raised:
        build_config(flags={key: f"{name}x"})
    (line,) = raised.value.problems
    assert line.startswith(f"{key}: there is no '{name}x', but '{name}'; choose one of {name}")
    assert "--plugin" in line


def test_a_typo_beside_a_plugin_is_refused_too(hairpin: Hairpin) -> None:
    plugin = EXAMPLES / "quadratic.py"
    said = hairpin(
        "schedule", "--updates", 9, "--schedule.kind", "quadratix", "--plugin", plugin
    ).refusal
    assert "there is no 'quadratix', but 'quadratic'" in said


def test_what_a_plugins_network_cannot(text: Path) -> None:
    plugin = EXAMPLES / "convolution.py"
    settings = {"model.architecture": "gated-convolution"}
    with pytest.raises(UserError, match=r"execution\.compile: not with the network of a plugin"):
        train(text, "run", plugin, **settings, **{"execution.compile": "on"})
    with pytest.raises(UserError, match=r"start\.path: not with the network of a plugin"):
        train(text, "run", plugin, **settings, **{"start.path": str(text.parent)})


def test_a_loss_weighs_targets_as_cross_entropy_does(text: Path, tmp_path: Path) -> None:
    """A loss that is cross entropy gives the run that the model's own does."""
    plugin = a_plugin(
        tmp_path,
        "register_loss('mine', lambda logits, targets: F.cross_entropy(logits.transpose(1, 2), "
        "targets, reduction='none'))\n",
    )
    own = hairpin.train(text, out=text.parent / "own", settings=SETTINGS, watcher=Watching())
    run = train(text, "run", plugin, **{"train.loss": "mine"})
    for left, right in zip(
        of_kind(own.record(), "update"), of_kind(run.record(), "update"), strict=True
    ):
        assert left["loss"] == pytest.approx(right["loss"], abs=2e-5)


def test_a_run_of_a_plugin_is_not_read_as_another(text: Path) -> None:
    run = train(
        text, "run", EXAMPLES / "convolution.py", **{"model.architecture": "gated-convolution"}
    )
    trained = run.trained()
    assert not isinstance(trained.model, nn.ModuleList) and trained.measure([]).loss > 0
    written = "".join(run.writer().write("the", tokens=5))
    assert written == "".join(run.writer().write("the", tokens=5))
    for found in list(plugins.REGISTERED.values()):
        plugins.forget(found)
    plugin_files._LOADED.clear()
    with pytest.raises(PluginError, match="name its file with --plugin"):
        run.trained()
    with pytest.raises(RunError, match="--plugin"):
        hairpin.resume(run.path, extend=4, policy="constant", watcher=Watching())


def test_registered_names_are_found(tmp_path: Path) -> None:
    make: Callable[..., Any] = F.cross_entropy
    plugins.register_loss("mine", make)
    assert plugins.known("loss") == ("cross-entropy", "mine")
    found = plugins.registered("loss", "mine")
    assert found and found.make is make and found.file == __file__
    assert plugins.registered("loss", "cross-entropy") is None
