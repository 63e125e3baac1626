"""hairpin's own step, on the same job as the peers.

python -m benchmarks.speed.run_hairpin JOB RESULT
"""

from hairpin.system.allocator import keep_memory

keep_memory()

from benchmarks.speed.job import Clock, open_job  # noqa: E402
from hairpin.config.settings import Execution, Optimizer  # noqa: E402
from hairpin.config.settings import Guard as GuardSettings  # noqa: E402
from hairpin.machine.numerics import Numerics  # noqa: E402
from hairpin.model.gpt import GPT  # noqa: E402
from hairpin.model.shape import Shape  # noqa: E402
from hairpin.optim.gradients import Clipper  # noqa: E402
from hairpin.optim.guard import Guard  # noqa: E402
from hairpin.optim.optimizers import build_optimizer  # noqa: E402
from hairpin.planning.measure.room import usable_gigabytes  # noqa: E402
from hairpin.planning.sizes import micro_batch_sequences  # noqa: E402
from hairpin.training.spread import Spread  # noqa: E402
from hairpin.training.step import Stepper  # noqa: E402

job = open_job()
numerics = Numerics(job.device, job.precision)
numerics.configure(deterministic=Execution().deterministic)
model = GPT(Shape(**job.shape))
model.load_state_dict(job.load_weights())
model.to(job.device)
settings = Optimizer(kind="adamw", weight_decay=0.0, beta2=0.999)
ids = job.load_ids()
# As a run chooses it: the others take the whole batch at once, which they cannot choose.
memory_bytes = 1e9 * usable_gigabytes(job.device)
micro_batch = micro_batch_sequences(model.shape, ids.size(1), memory_bytes, job.device)
stepper = Stepper(
    Spread(model), build_optimizer(model, settings), Clipper("norm", 1.0), numerics, seed=0,
    micro_batch=micro_batch, guard=Guard(GuardSettings(), job.device),
)  # fmt: skip
clock = Clock()
for update, rows in enumerate(ids):
    batch = (rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    clock.tick(stepper.step(batch, update=update, position=0, lr=job.lr).loss)
clock.write(job, "hairpin")
