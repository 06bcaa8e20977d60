"""What this machine computes with: device, dtype, threads, and when it is out of memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from trivet import machine
from trivet.errors import EncoderBroken, EncoderOutOfMemory, InvalidRequest

#: What an encoder may be asked to compute in. int8 is the linear layers alone: the rest runs in what is fast beside it.
DTYPES = ("fp32", "bf16", "fp16", "int8")

#: Tokens of one forward pass, by device; measured with bge-m3's shapes on Zen 4 and on an H200, where four and eight
#: times as many gain 4 to 7 %, and a quarter of them loses a third.
PASS_TOKENS = {"cpu": 2048, "cuda": 16384}

#: How the CPU allocator of torch words it; there is no type of its own for it.
_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
#: torch has it from 2.8 on.
_ACCELERATOR_ERROR: Any = getattr(torch, "AcceleratorError", ())
#: How errors of CUDA and its libraries begin that are no `torch.AcceleratorError`.
_ACCELERATOR = re.compile(r"(CUDA|CUBLAS|cuBLAS|cuDNN|CUDNN) error\b")
#: How an allocation outside of torch's own allocator fails.
_ALLOCATION = re.compile(r"out of memory|_ALLOC_FAILED")


def pick_device(asked: str) -> str:
    """`cpu` or `cuda` for the setting auto, cpu or cuda. Raises `InvalidRequest` for CUDA where there is none."""
    if asked not in ("auto", "cpu", "cuda"):
        raise InvalidRequest(f"Setting TRIVET_DEVICE is {asked!r}.", hint="Choose auto, cpu or cuda.")
    has_cuda = torch.cuda.is_available()
    if asked == "cuda" and not has_cuda:
        raise InvalidRequest("Setting TRIVET_DEVICE is cuda, but torch finds no CUDA device here.")
    return "cuda" if has_cuda and asked != "cpu" else "cpu"


def pick_dtype(asked: str, device: str) -> str:
    """fp32, bf16, fp16 or int8 as asked; auto is what the device computes fast.

    On a CPU bf16 where it has instructions for it, else fp32 (fp16 runs at a tenth of the speed there). On CUDA fp16,
    in which bge-m3 is published to run: three more bits of mantissa than bf16.
    """
    if asked in DTYPES:
        return asked
    if asked != "auto":
        raise InvalidRequest(f"No dtype is called {asked!r}.", hint=f"Choose auto or {', '.join(DTYPES)}.")
    if device == "cuda":
        return "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def torch_dtype(name: str) -> torch.dtype:
    """What hidden states are held in under the dtype `name`, one of `DTYPES`."""
    if name == "int8":
        return torch.bfloat16 if cpu_has_bf16() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices in hardware (x86: AVX512_BF16 or AMX; Arm: BF16)."""
    return bool(_processor_words() & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_has_tiles() -> bool:
    """Whether it multiplies whole tiles of them at once (x86: AMX): products take an eighth of the time of fp32."""
    return "amx_bf16" in _processor_words()


@cache
def _processor_words() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()


def set_threads(count: int) -> None:
    """Threads of one forward pass in this process; 0 means all cores that it may use.

    torch knows nothing of a container's quota: with a thread for each core of the machine, most would wait for it.
    """
    torch.set_num_threads(count or min(torch.get_num_threads(), machine.cores()))


def describe_device(device: str) -> str:
    """The device as a passport names it."""
    return f"cuda ({torch.cuda.get_device_name()})" if device == "cuda" else device


@contextmanager
def device_errors(device: str, tokens: int) -> Iterator[None]:
    """Turn an allocation that failed into `EncoderOutOfMemory`, and an error of the accelerator into `EncoderBroken`:
    after one of those every later call fails too. Every other error passes as it is.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(device, tokens) from error
    except RuntimeError as error:
        text = str(error)
        of_accelerator = isinstance(error, _ACCELERATOR_ERROR) or _ACCELERATOR.match(text) is not None
        if _CPU_OUT_OF_MEMORY in text or (of_accelerator and _ALLOCATION.search(text)):
            raise _out_of_memory(device, tokens) from error
        if of_accelerator:
            first = text.splitlines()[0][:200]
            raise EncoderBroken(f"The {device} device failed on a batch of {tokens} tokens: {first}") from error
        raise


def _out_of_memory(device: str, tokens: int) -> EncoderOutOfMemory:
    return EncoderOutOfMemory(f"The {device} device has no memory for a batch of {tokens} tokens.")
