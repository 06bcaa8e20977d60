"""What this machine's processor can do, where a test's reach or time depends on it."""

from __future__ import annotations

import torch

#: Whether oneDNN computes bf16 with instructions for it; without AVX-512 it takes many times as long.
BF16 = "AVX512" in torch.backends.cpu.get_cpu_capability()
