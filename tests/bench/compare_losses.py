"""Times the losses of bench_losses and the same losses in eager PyTorch, in turns, and prints the ratio of the times.

What it is not: the benchmark of a whole training step (compare_with_pytorch.py).

Usage: OMP_WAIT_POLICY=passive python3 compare_losses.py path/of/bench_losses [--filter TEXT] [--rounds 9] [--json]

PyTorch runs each loss with contiguous (NCHW) and with channels-last maps; the faster of the two counts. Each round times
both sides right after each other; the median over the rounds of the ratio inside a round is the result, because the speed
of a shared machine drifts.
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


LOSSES = {"cross_entropy": cross_entropy, "pixel_kd": pixel_kd, "channel_kd": channel_kd,
          "ka_autoencoder": ka_autoencoder, "ka_adapt": ka_adapt, "ka_affinity": ka_affinity,
          "ka_affinity_rownorm": ka_affinity_rownorm, "ka_affinity_tdl": ka_affinity_tdl}
KA = ["ka_autoencoder", "ka_adapt", "ka_affinity", "ka_affinity_rownorm", "ka_affinity_tdl"]


class PyTorch:
    def __init__(self, name, layout):
        kind, shape, dtype = re.fullmatch(r"(.+?)_(\d+x\d+x\d+x\d+)_(f32|bf16)", name).groups()
        shape = [int(v) for v in shape.split("x")]
        torch.manual_seed(11)
        dtype = torch.float32 if dtype == "f32" else torch.bfloat16
        self.loss = LOSSES[kind]
        self.student, self.teacher = (
            (2 * torch.randn(shape)).to(dtype=dtype, memory_format=layout) for _ in range(2))
        self.student.requires_grad_()
        labels = torch.randint(0, shape[1], (shape[0], shape[2], shape[3]))
        self.extra = labels.masked_fill(torch.rand(labels.shape) < 0.05, 255)
        if kind == "ka_autoencoder":
            code = torch.randn(shape[0], shape[1] // 2, *shape[2:]).to(dtype=dtype, memory_format=layout)
            self.extra = code.requires_grad_()
        self.time()

    def time(self):
        start = time.perf_counter()
        self.loss(self.student, self.teacher, self.extra).backward()
        elapsed = (time.perf_counter() - start) * 1e3
        self.student.grad = self.extra.grad = None
        return elapsed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--filter", default="")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    listing = ["cross_entropy", "pixel_kd", "channel_kd"]
    names = [f"{loss}_{shape}_{dtype}" for shape in ("4x19x128x256", "4x19x512x512") for dtype in ("f32", "bf16")
             for loss in listing] + ["channel_kd_4x512x64x64_f32"]
    names += [f"{loss}_4x256x64x128_{dtype}" for dtype in ("f32", "bf16") for loss in KA]
    rival = subprocess.Popen([args.program, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
            print(f"{name:34s} limbeck {ours:8.2f} ms   pytorch {min(result['pytorch_ms'].values()):8.2f} ms ({best})"
                  f"   {ratios[best]:5.2f}x", flush=True)
    rival.stdin.close()
    rival.wait()


if __name__ == "__main__":
    main()
