#!/usr/bin/env python3
"""Values of the knowledge-adaptation losses by PyTorch in f64, for the constants in tests/test_ka_*.cpp.

Prints, per loss, its value, the l2 norm of its gradient with respect to the student, and the first element of that gradient,
on the two wave maps of tests/harness/oracle_maps.h. The formulas are written out with torch's own operators, so that autograd
derives the gradients. Needs torch; the tests do not.
"""
import math

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def wave(a, b, c, d, shape):
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (c * torch.sin(a * k + b) + d * torch.cos(0.05 * k)).reshape(shape)


S = wave(0.37, 0.1, 2.0, 0.5, (2, 3, 4, 5))
T = wave(0.23, 1.0, 2.0, -0.5, (2, 3, 4, 5))


def row(name, loss):
    s = S.clone().requires_grad_(True)
    value = loss(s)
    value.backward()
    print(f"{name:30s} {{{value.item():.13g}, {s.grad.norm().item():.13g}, {s.grad.flatten()[0].item():.13g}}}")


def affinity(x):
    f = F.normalize(x.flatten(2), dim=1, eps=1e-12)
    return f.transpose(1, 2) @ f


def channel_products(x):
    a = F.normalize(x.flatten(2), dim=2)
    return a[:, :, :, None] * a[:, :, None, :]


def pixel(s, p):
    return (F.normalize(s, dim=1) - F.normalize(T, dim=1)).norm(p, dim=1).mean()


row("adapt image q2 p1", lambda s: (F.normalize(s.flatten(1)) - F.normalize(T.flatten(1))).abs().mean())
row("adapt pixel q2 p1", lambda s: pixel(s, 1))
row("adapt pixel q2 p2", lambda s: pixel(s, 2))
row("affinity mean_square", lambda s: (affinity(s) - affinity(T)).square().mean())
row("affinity rownorm", lambda s: (affinity(s) - affinity(T)).norm(dim=2).mean())
row("affinity tdl", lambda s: ((channel_products(s) - channel_products(T)) / 20).norm(dim=(2, 3)).sum(1).mean())
R = wave(0.31, 0.4, 1.0, 0.2, (2, 3, 4, 5))
E = wave(0.29, 0.2, 1.0, 0.3, (2, 2, 4, 5))
print("autoencoder: mean square", f"{(R - T).square().mean().item():.12g}", "sum |E|", f"{E.abs().sum().item():.12g}")
