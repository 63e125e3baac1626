"""A schedule as a PyTorch LR scheduler, for loops and trainers that take one.

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = ScheduleLR(optimizer, hairpin.schedules.cosine(updates=1000, warmup=50, peak_lr=1e-3))
for batch in batches:
...
optimizer.step()
scheduler.step()
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler


class ScheduleLR(LRScheduler):
    """Learning rate scheduler that gives update u, from 0, exactly the schedule's rate.

    Groups keep the ratio of their initial rates: the largest gets the schedule's, and a group made
    with a tenth of that gets a tenth. A group's `lr_scale`, if it has one, is used as the multiple
    instead.

    Args:
        optimizer: the one whose learning rates are set from now on.
        schedule: update → learning rate; a `hairpin.schedules.Schedule`, or any function.
        last_epoch: the last completed update of a run that is resumed; -1: none.

    Its state is two numbers and a list, and no code: the schedule is passed again on resume.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int], float],
        last_epoch: int = -1,
    ) -> None:
        self.schedule = schedule
        initial = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        largest = max(initial) or 1.0
        self.scales = [
            float(group.get("lr_scale", lr / largest if any(initial) else 1.0))
            for group, lr in zip(optimizer.param_groups, initial, strict=True)
        ]
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Return the rate of each group for the next update."""
        lr = self.schedule(self.last_epoch)
        return [lr * scale for scale in self.scales]

    def state_dict(self) -> dict[str, Any]:
        """Return the index of the next update, and each group's multiple."""
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "scales": list(self.scales),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from `state_dict`; the optimizer gets that update's rates at once."""
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
