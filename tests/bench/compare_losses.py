"""Times the losses of bench_losses and the same losses in eager PyTorch, in turns, and prints the ratio of the times.

What it is not: the benchmark of a whole training step (compare_with_pytorch.py).

Usage: OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 python3 compare_losses.py path/of/bench_losses [--filter TEXT] [--rounds 9] [--json] [--cpu]

PyTorch runs each loss with contiguous (NCHW) and with channels-last maps; the faster of the two counts. Each round times
both sides right after each other; the median over the rounds of the ratio inside a round is the result, because the speed
of a shared machine drifts. --cpu compares processor times (of one thread): where others load the machine, wall time favours
whoever is done before he is interrupted.
"""

import argparse
import json
import re
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

TAU = 4.0


def cross_entropy(s, t, labels):
    return F.cross_entropy(s, labels, ignore_index=255)


def pixel_kd(s, t, labels):
    n, _, h, w = s.shape
    kl = F.kl_div(F.log_softmax(s / TAU, 1), F.softmax(t / TAU, 1), reduction="sum")
    return kl * (TAU * TAU / (n * h * w))


def channel_kd(s, t, labels):
    n, c, h, w = s.shape
    s, t = s.reshape(n * c, h * w), t.reshape(n * c, h * w)
    kl = F.kl_div(F.log_softmax(s / TAU, 1), F.softmax(t / TAU, 1), reduction="sum")
    return kl * (TAU * TAU / (n * c))


def icsd(s, t, labels):
    def matrix(x):
        l = F.log_softmax(x.flatten(2), -1)
        p = l.exp()
        k = (p * l).sum(-1, keepdim=True) - p @ l.transpose(1, 2)
        return F.normalize(k.mean(0), dim=1)
    return ((matrix(s) - matrix(t)) ** 2).mean() / s.shape[0]


def inter_channel_kd(s, t, labels):
    def matrix(x):
        x = x.flatten(2)
        return F.normalize(x @ x.transpose(1, 2), dim=-1)
    return ((matrix(s) - matrix(t)) ** 2).sum() / (s.shape[0] * s.shape[1])


def csd_kd(s, t, labels):
    def matrix(x):
        p = F.softmax(F.avg_pool2d(x, 2, 2, ceil_mode=True).flatten(2) / TAU, -1)
        return p @ p.transpose(1, 2)
    return F.mse_loss(matrix(s), matrix(t))


def local_kd(s, t, labels):
    def distances(x):
        pairs = ((x[..., 1:], x[..., :-1]), (x[..., 1:, :], x[..., :-1, :]),
                 (x[..., 1:, 1:], x[..., :-1, :-1]), (x[..., 1:, :-1], x[..., :-1, 1:]))
        return torch.cat([(a - b).pow(2).sum(1).sqrt().flatten() for a, b in pairs])
    return F.mse_loss(distances(s), distances(t))


def feature_mse(s, t, labels):
    return F.mse_loss(s, t)


def attention_kd(s, t, labels):
    def attention(x):
        return F.normalize(x.pow(2).mean(1).flatten(1))
    return F.mse_loss(attention(s), attention(t))


def similarity(s, t, window, detach):
    def matrix(x):
        x = F.max_pool2d(x, window, window, ceil_mode=True).flatten(2)
        norm = x.norm(dim=1, keepdim=True) + 1e-8
        x = x / (norm.detach() if detach else norm)
        return x.transpose(1, 2) @ x
    return F.mse_loss(matrix(s), matrix(t))


def pairwise_kd(s, t, labels):
    return similarity(s, t, (s.shape[2] // 2, s.shape[3] // 2), True)


def pairwise2_kd(s, t, labels):
    return similarity(s, t, (2, 2), False)


def batch_similarity_kd(s, t, labels):
    def matrix(x):
        x = x.flatten(1)
        return F.normalize(x @ x.t())
    return F.mse_loss(matrix(s), matrix(t))


def ifvd(s, t, labels):
    ids = labels.flatten(1)
    valid = ids != 255
    members = F.one_hot(ids.clamp(max=255), 256)[..., :19].to(s.dtype)  # [N, M, K]
    count = members.sum(1).unsqueeze(-1) + 1e-6

    def variation(x):
        x = x.flatten(2).transpose(1, 2)
        centre = members.transpose(1, 2) @ x / count
        index = torch.where(valid, ids, 0).unsqueeze(-1).expand(-1, -1, x.shape[2])
        return F.cosine_similarity(x, torch.where(valid.unsqueeze(-1), centre.gather(1, index), x), dim=2)
    return F.mse_loss(variation(s), variation(t))


def ofd_kd(s, t, labels):
    target = torch.maximum(t, torch.full((1, t.shape[1], 1, 1), -0.5, dtype=t.dtype))
    counts = (s > target) | (target > 0)
    return (F.mse_loss(s, target, reduction="none") * counts).sum() / s.shape[0]


def ka_autoencoder(s, t, code):
    return F.mse_loss(s, t) + 1e-7 / s.shape[0] * code.abs().sum()


def ka_adapt(s, t, labels):
    return F.l1_loss(F.normalize(s.flatten(1)), F.normalize(t.flatten(1)))


def affinity_difference(s, t):
    s, t = F.normalize(s.flatten(2), dim=1), F.normalize(t.flatten(2), dim=1)
    return s.transpose(1, 2) @ s - t.transpose(1, 2) @ t


def ka_affinity(s, t, labels):
    return affinity_difference(s, t).square().mean()


def ka_affinity_rownorm(s, t, labels):
    return affinity_difference(s, t).norm(dim=2).mean()


def ka_affinity_tdl(s, t, labels):
    """Not with a matrix of all pairs per channel, as torchdistill does: that would take minutes and gigabytes."""
    a, b = F.normalize(s.flatten(2), dim=2), F.normalize(t.flatten(2), dim=2)
    squares = (a * a).sum(2) ** 2 + (b * b).sum(2) ** 2 - 2 * (a * b).sum(2) ** 2
    return squares.clamp_min(0).sqrt().sum() / (a.shape[0] * a.shape[2])


ON_LOGITS = [cross_entropy, pixel_kd, channel_kd, icsd, inter_channel_kd, csd_kd, local_kd]
ON_FEATURES = [feature_mse, channel_kd, attention_kd, pairwise_kd, pairwise2_kd, batch_similarity_kd, ifvd, ofd_kd,
               ka_autoencoder, ka_adapt, ka_affinity, ka_affinity_rownorm, ka_affinity_tdl]
LOSSES = {f.__name__: f for f in ON_LOGITS + ON_FEATURES}


class PyTorch:
    clock = staticmethod(time.perf_counter)

    def __init__(self, name, layout):
        kind, shape, dtype = re.fullmatch(r"(.+?)_(\d+x\d+x\d+x\d+)_(f32|bf16)", name).groups()
        shape = [int(v) for v in shape.split("x")]
        torch.manual_seed(11)
        dtype = torch.float32 if dtype == "f32" else torch.bfloat16
        self.loss = LOSSES[kind]
        self.student, self.teacher = (
            (2 * torch.randn(shape)).to(dtype=dtype, memory_format=layout) for _ in range(2))
        self.student.requires_grad_()
        labels = torch.randint(0, min(shape[1], 19), (shape[0], shape[2], shape[3]))
        self.extra = labels.masked_fill(torch.rand(labels.shape) < 0.05, 255)
        if kind == "ka_autoencoder":
            code = torch.randn(shape[0], shape[1] // 2, *shape[2:]).to(dtype=dtype, memory_format=layout)
            self.extra = code.requires_grad_()
        self.time()

    def time(self):
        start = self.clock()
        self.loss(self.student, self.teacher, self.extra).backward()
        elapsed = (self.clock() - start) * 1e3
        self.student.grad = self.extra.grad = None
        return elapsed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--filter", default="")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    if args.cpu:
        torch.set_num_threads(1)
        PyTorch.clock = staticmethod(time.process_time)

    groups = [(ON_LOGITS, "4x19x128x256"), (ON_FEATURES, "4x256x64x128"), (ON_LOGITS[:3], "4x19x512x512")]
    names = [f"{loss.__name__}_{shape}_{dtype}" for dtype in ("f32", "bf16") for losses, shape in groups for loss in losses]
    rival = subprocess.Popen([args.program, "--serve"] + ["--cpu"] * args.cpu, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for name in (n for n in names if args.filter in n):
        torches = {"nchw": PyTorch(name, torch.contiguous_format), "channels_last": PyTorch(name, torch.channels_last)}
        times = {"limbeck": [], "nchw": [], "channels_last": []}
        for _ in range(args.rounds):
            rival.stdin.write(f"{name} 1\n")
            rival.stdin.flush()
            times["limbeck"] += json.loads(rival.stdout.readline())["ms"]
            for layout, contender in torches.items():
                times[layout].append(contender.time())
        ours = statistics.median(times["limbeck"])
        ratios = {k: statistics.median(t / o for t, o in zip(times[k], times["limbeck"])) for k in torches}
        best = min(ratios, key=ratios.get)
        result = {"name": name, "limbeck_ms": round(ours, 3),
                  "pytorch_ms": {k: round(statistics.median(times[k]), 3) for k in torches},
                  "speedup_over_best": round(ratios[best], 2), "best": best}
        if args.json:
            print(json.dumps(result), flush=True)
        else:
            print(f"{name:38s} limbeck {ours:8.2f} ms   pytorch {min(result['pytorch_ms'].values()):8.2f} ms ({best})"
                  f"   {ratios[best]:5.2f}x", flush=True)
    rival.stdin.close()
    rival.wait()


if __name__ == "__main__":
    main()
