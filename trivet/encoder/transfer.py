"""Copies between the host and a device that wait for nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def to_device(values: Tensor, device: str) -> Tensor:
    """A tensor of the host on `device`; on its way there through pinned memory, where that is a GPU."""
    return values if device == "cpu" else values.pin_memory().to(device, non_blocking=True)


def to_host(values: Tensor) -> Tensor:
    """The same numbers in host memory, of the same dtype: from a GPU pinned, and not there before `mark` says so."""
    if values.device.type == "cpu":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def mark(device: torch.device) -> Callable[[], None]:
    """What waits, when it is called, for all that the device was given before now. Nothing on a CPU."""
    if device.type == "cpu":
        return lambda: None
    # Blocking: a thread that waits leaves its core to those that write.
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # torch gives it no types
    event.record()
    wait: Callable[[], None] = event.synchronize
    return wait
