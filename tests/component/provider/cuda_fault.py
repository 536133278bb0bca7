"""A program that does on a real card what workloads do at times: it writes where it may not, and the driver reports an Xid of it.

It takes the driver's library alone, and PTX that each driver compiles for its card. It ends with 0 where the card refused the write.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Final

KERNEL: Final = b"""
.version 7.0
.target sm_50
.address_size 64
.visible .entry stray()
{
    .reg .b64 %where;
    .reg .b32 %what;
    mov.u64 %where, 64;
    mov.u32 %what, 1;
    st.global.u32 [%where], %what;
    ret;
}
"""
REFUSED: Final = (700, 719)
"""CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_FAILED."""


def main() -> int:
    """Launch the kernel on the first card and wait for its end."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context, module, kernel = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    steps: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        lambda: driver.cuCtxSetCurrent(context),
        lambda: driver.cuModuleLoadData(ctypes.byref(module), ctypes.c_char_p(KERNEL)),
        lambda: driver.cuModuleGetFunction(ctypes.byref(kernel), module, b"stray"),
        lambda: driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None),
    )
    for step in steps:
        code = step()
        if code:
            sys.stderr.write(f"the driver answers {code}\n")
            return 2
    return 0 if driver.cuCtxSynchronize() in REFUSED else 1


if __name__ == "__main__":
    sys.exit(main())
