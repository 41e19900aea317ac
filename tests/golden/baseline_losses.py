#!/usr/bin/env python3
"""Values of the baseline losses by PyTorch in f64, for the constants in tests/test_*_kd.cpp and tests/test_ifvd.cpp.

Prints a row per loss on the two maps of wave_maps.py. The formulas are written out with torch's own operators, so that autograd
derives the gradients. Needs torch; the tests do not.
"""
import math

import torch
import torch.nn.functional as F

from wave_maps import S, T, row, wave

LABELS = torch.tensor([[[(7 * n + 3 * h + 2 * w) % 4 for w in range(5)] for h in range(4)] for n in range(2)])


def attention(x):
    return F.normalize((x**2).mean(1).flatten(1))


def psd(students, teachers):
    total, pairs = 0.0, 0
    for k in range(len(students)):
        for l in range(k + 1, len(students)):
            rs = F.normalize(attention(students[l]) - attention(students[k]))
            rt = F.normalize(attention(teachers[l]) - attention(teachers[k]))
            total, pairs = total + ((rs - rt) ** 2).mean(), pairs + 1
    return total / pairs


def overlaps(x, tau):
    p = F.avg_pool2d(x, 2, 2, ceil_mode=True).flatten(2).div(tau).softmax(-1)
    return p @ p.transpose(1, 2)


def correlation(x):
    x = x.flatten(2)
    return F.normalize(x @ x.transpose(1, 2), dim=-1)


def pairwise(x, pool, eps, detach):
    p = F.max_pool2d(x, pool, pool, ceil_mode=True).flatten(2)
    norm = p.norm(dim=1, keepdim=True)
    f = p / ((norm.detach() if detach else norm) + eps)
    return f.transpose(1, 2) @ f


def centres(x):
    out = x.clone()
    sim = torch.ones(x.shape[0], *x.shape[2:])
    for n in range(x.shape[0]):
        for k in range(3):
            mask = LABELS[n] == k
            mu = (x[n] * mask).sum((1, 2)) / (mask.sum() + 1e-6)
            sim[n][mask] = F.cosine_similarity(x[n][:, mask], mu[:, None], dim=0, eps=1e-8)
    return sim


def distances(x):
    n, c, h, w = x.shape
    out = []
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        a = x[:, :, : h - dy, max(0, -dx) : w - max(0, dx)]
        b = x[:, :, dy:, max(0, dx) : w + min(0, dx)]
        out.append(((a - b) ** 2).sum(1).sqrt().flatten())
    return torch.cat(out)


def margin(weight, bias):
    m = []
    for s, mu in zip(weight.abs().tolist(), bias.tolist()):
        below = 0.5 * math.erfc(mu / s / math.sqrt(2))
        density = math.exp(-((mu / s) ** 2) / 2) / math.sqrt(2 * math.pi)
        m.append(mu - s * density / below if below > 1e-3 else -3 * s)
    return torch.tensor(m)


def ofd(s, t, m):
    u = torch.max(t, m.view(1, -1, 1, 1))
    return ((s - u) ** 2 * ((s > u) | (u > 0))).sum() / s.shape[0]


row("attention mean_square", lambda s: ((attention(s) - attention(T)) ** 2).mean())
row("attention norm", lambda s: (attention(s) - attention(T)).norm(dim=1).mean())
row("attention columns", lambda s: ((F.normalize((s**2).mean(1)) - F.normalize((T**2).mean(1))) ** 2).mean())
S2 = wave(0.41, 0.3, 1.5, 0.2, (2, 2, 4, 5))
T2 = wave(0.19, 0.7, 1.2, 0.1, (2, 4, 4, 5))
S3 = wave(0.31, 0.4, 1.0, 0.2, (2, 3, 4, 5))
row("psd, two layers, first", lambda s: psd([s, S2], [T, T2]))
row("psd, three layers, first", lambda s: psd([s, S2, S3], [T, T2, T * 0.5 + 1]))
row("psd, three layers, second", lambda s: psd([S, s, S3], [T, T2, T * 0.5 + 1]), S2)
for pool, detach in ((2, True), (2, False), (1, True), (1, False)):
    row(f"pairwise pool {pool} detach {detach}", lambda s: ((pairwise(s, pool, 1e-8, detach) - pairwise(T, pool, 1e-8, detach)) ** 2).mean())
gram = lambda x: F.normalize(x.flatten(1) @ x.flatten(1).T, dim=1)
row("batch similarity", lambda s: ((gram(s) - gram(T)) ** 2).sum() / 4)
row("inter-channel / (C N)", lambda s: ((correlation(s) - correlation(T)) ** 2).sum() / 6)
row("inter-channel / (C N^2)", lambda s: ((correlation(s) - correlation(T)) ** 2).sum() / 12)
row("csd tau 4", lambda s: ((overlaps(s, 4) - overlaps(T, 4)) ** 2).mean())
row("csd tau 1", lambda s: ((overlaps(s, 1) - overlaps(T, 1)) ** 2).mean())
row("ifvd", lambda s: ((centres(s) - centres(T)) ** 2).mean())
row("local", lambda s: ((distances(s) - distances(T)) ** 2).mean())
m = margin(torch.tensor([1.0, -0.5, 0.2]), torch.tensor([0.3, -0.4, 1.0]))
print("margins", [f"{v:.13g}" for v in m.tolist()])
row("ofd", lambda s: ofd(s, T, m))
