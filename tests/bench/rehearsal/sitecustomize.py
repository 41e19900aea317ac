"""A rehearsal of the scripts beside this folder without a card: with it in PYTHONPATH, PyTorch's "cuda" is the CPU.

Python imports a file of this name by itself. Only what the scripts use is replaced, so that a misspelt name, a wrong argument
or a line that nothing reads is found before a card is paid for. Times mean nothing.
"""

import sys
import time

try:
    import torch
except ImportError:  # a machine without PyTorch is rehearsed as well
    torch = None


def on_cpu(device):
    return "cpu" if str(device).startswith("cuda") else device


def redirected(function, position=None):
    """`function` with its device, by name or at `position`, replaced."""
    def call(*args, **kwargs):
        if "device" in kwargs:
            kwargs["device"] = on_cpu(kwargs["device"])
        if position is not None and len(args) > position and isinstance(args[position], str):
            args = (*args[:position], on_cpu(args[position]), *args[position + 1:])
        return function(*args, **kwargs)
    return call


class Event:
    def __init__(self, enable_timing=False):
        assert enable_timing
        self.when = None

    def record(self):
        self.when = time.perf_counter()

    def synchronize(self):
        assert self.when is not None

    def elapsed_time(self, end):
        return (end.when - self.when) * 1e3


if torch is not None:
    for name in ("randn", "randint", "rand", "full", "zeros", "empty"):
        setattr(torch, name, redirected(getattr(torch, name)))
    torch.Tensor.to = redirected(torch.Tensor.to, 1)
    torch.nn.Module.to = redirected(torch.nn.Module.to, 1)
    autocast = torch.autocast
    torch.autocast = lambda device, **options: autocast(on_cpu(device), **options)
    # PyTorch's compiler, which asks too, is told the truth: it makes code for the CPU.
    torch.cuda.is_available = lambda: sys._getframe(1).f_globals.get("__name__") == "__main__"
    torch.cuda.Event = Event
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, lambda: None)
    torch.cuda.max_memory_allocated = lambda: 1 << 30
