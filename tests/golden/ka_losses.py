#!/usr/bin/env python3
"""Values of the knowledge-adaptation losses by PyTorch in f64, for the constants in tests/test_ka_*.cpp.

Prints a row per loss on the two maps of wave_maps.py. The formulas are written out with torch's own operators, so that autograd
derives the gradients. Needs torch; the tests do not.
"""
import torch.nn.functional as F

from wave_maps import S, T, row, wave


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
