"""The C library's allocator, told to keep what is freed.

An update allocates and frees gigabytes of tensors in blocks above glibc's threshold for mapping. Each of these would
be mapped, filled with zeros page by page as it is first touched, and given back: 65,000 page faults an update of
BERT-base.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping

# malloc.h
M_TRIM_THRESHOLD = -1  # bytes free at the top of the heap before they go back to the system
M_TOP_PAD = -2  # bytes asked for beyond what is needed
M_MMAP_MAX = -4  # blocks mapped on their own
NEVER = -1


def keep_freed_memory(env: Mapping[str, str] = os.environ) -> str:
    """Set this for the process. Returns what was done, for the log."""
    preloaded = re.search(r"(tcmalloc|jemalloc)", env.get("LD_PRELOAD", ""))
    if preloaded:  # these keep it by themselves, and glibc's settings do not reach them
        return f"{preloaded[1]} is preloaded"
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: musl and macOS have none; Windows wants a name
        return "as the C library does it"
    settings = {M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: 64 << 20, M_MMAP_MAX: 0}
    done = all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings.items())
    return "freed blocks are kept for the next update" if done else "as the C library does it"
