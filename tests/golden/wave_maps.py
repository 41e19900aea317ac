"""The small student and teacher maps of tests/harness/oracle_maps.h in PyTorch, f64, and the printing of an oracle row.

Imported by ka_losses.py and baseline_losses.py. Needs torch; the tests do not.
"""
import math

import torch

torch.set_default_dtype(torch.float64)


def wave(a, b, c, d, shape):
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (c * torch.sin(a * k + b) + d * torch.cos(0.05 * k)).reshape(shape)


S = wave(0.37, 0.1, 2.0, 0.5, (2, 3, 4, 5))
T = wave(0.23, 1.0, 2.0, -0.5, (2, 3, 4, 5))


def row(name, loss, student=S):
    """Prints the loss, the l2 norm of its gradient with respect to the student, and the first element of that gradient."""
    s = student.clone().requires_grad_(True)
    value = loss(s)
    value.backward()
    print(f"{name:40s} {{{value.item():.13g}, {s.grad.norm().item():.13g}, {s.grad.flatten()[0].item():.13g}}}")
