"""Which errors of torch mean no memory, a broken device, or neither."""

from __future__ import annotations

import pytest
import torch

from trivet.encoder.runtime import device_errors
from trivet.errors import EncoderBroken, EncoderOutOfMemory


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), EncoderOutOfMemory),
        (MemoryError(), EncoderOutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), EncoderOutOfMemory),
        (torch.AcceleratorError("CUDA error: out of memory"), EncoderOutOfMemory),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            EncoderOutOfMemory,
        ),
        (torch.AcceleratorError("CUDA error: device-side assert triggered\nmore"), EncoderBroken),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), EncoderBroken),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), EncoderBroken),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), EncoderBroken),
        (RuntimeError("shape '[2, 3]' is invalid for input of size 5"), RuntimeError),
        (ValueError("a bug"), ValueError),
    ],
)
def test_an_error_is_what_it_says(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, device_errors("cuda", 7):
        raise error
    assert type(caught.value) is kind
