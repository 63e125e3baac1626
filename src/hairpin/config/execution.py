"""Settings of how a machine runs it."""

from typing import Literal

from pydantic import Field

from hairpin.config.table import Count, Table


class Execution(Table):
    """How this machine runs it: kept so that a repeat computes the same bits."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where the model runs; `auto`: CUDA, else Apple's MPS, else the CPU."
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the matrix products; weights and moments stay float32. "
        "`auto` times a step and takes bfloat16 only where it is faster; on a GPU that has none "
        "float16, for which the loss is scaled.",
    )
    threads: Literal["auto", "all", "one"] = Field(
        "auto",
        description="Threads on a CPU: `all` that PyTorch takes (`OMP_NUM_THREADS`), or `one`. "
        "`auto` times both, and takes one where that is clearly faster: very small models, and "
        "machines that do other things too. The other makes other bits.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether blocks are compiled (`torch.compile`), which takes a minute at first "
        "and makes other bits. `auto`: on for CUDA; on a CPU timed, where a time budget of ten "
        "minutes or more leaves room for it, else off; off in fine-tuning. Where compiling fails "
        "it is off.",
    )
    micro_batch: Count | None = Field(
        None,
        description="Sequences in one forward pass; unset: as many as fit. It changes memory and "
        "speed, not what is learned.",
    )
    memory_gigabytes: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Memory that weights, moments and activations may take (10^9 bytes), from "
        "which `micro_batch` is derived; unset: 3, on CUDA 90% of what is free. A micro-batch that "
        "does not fit after all is halved.",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="With several processes (torchrun): each has the whole model (`ddp`), or a "
        "part of its weights, gradients and moments (`fsdp`), for models that do not fit "
        "otherwise.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute a block's activations again in the backward pass in place of keeping "
        "them: a fraction of the memory, about a third more time.",
    )
    deterministic: bool = Field(
        False,
        description="The same command gives the same bits each time on one machine: precision, "
        "threads and compiling are not timed, where they are `auto`, but float32 with all threads "
        "and not compiled (on CUDA bfloat16 or float16, compiled), and CUDA takes only kernels "
        "that give the same bits each time, which is slower. A length in time is still measured: "
        "give updates, tokens or epochs.",
    )
