"""Times the losses of bench_losses and the same losses in PyTorch, in turns, and prints the ratio of the times.

What it is not: the benchmark of a whole training step (compare_with_pytorch.py).

Usage: OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 python3 compare_losses.py path/of/bench_losses [--filter TEXT] [--rounds 9] [--json] [--cpu]
       python3 compare_losses.py path/of/bench_losses --device cuda --json [--compile channel_kd,icsd] [--only channel_kd,icsd]

PyTorch runs each loss with contiguous (NCHW) and with channels-last maps; the faster of the two counts. Those named by
--compile ("all": every one) also run under torch.compile. Each round times both sides right after each other; the median over
the rounds of the ratio inside a round is the result, because the speed of a shared machine drifts. --cpu compares processor
times (of one thread): where others load the machine, wall time favours whoever is done before he is interrupted.

On a GPU a turn is as many runs as about 30 ms hold, launched one behind the other between two events. --warm compiles, which
fills PyTorch's caches on disk, and times nothing. What fails stands in "errors" of the loss's line; the others go on, and the status is 1.
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
    target = torch.maximum(t, torch.full((1, t.shape[1], 1, 1), -0.5, dtype=t.dtype, device=t.device))
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


LOSSES = {f.__name__: f for f in (
    cross_entropy, pixel_kd, channel_kd, icsd, inter_channel_kd, csd_kd, local_kd, feature_mse, attention_kd, pairwise_kd,
    pairwise2_kd, batch_similarity_kd, ifvd, ofd_kd, ka_autoencoder, ka_adapt, ka_affinity, ka_affinity_rownorm,
    ka_affinity_tdl)}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
TURN_MS = 30  # of a turn on a GPU


def parts(name):
    """channel_kd_4x19x128x256_f32 -> its loss, shape and type."""
    kind, shape, dtype = re.fullmatch(r"(.+?)_(\d+x\d+x\d+x\d+)_(f32|bf16)", name).groups()
    return kind, [int(v) for v in shape.split("x")], dtype


class PyTorch:
    clock = staticmethod(time.perf_counter)

    def __init__(self, name, layout, device="cpu", compiled=False):
        kind, shape, dtype = parts(name)
        torch.manual_seed(11)
        dtype = torch.float32 if dtype == "f32" else torch.bfloat16
        self.device = device
        # One graph per loss, shape, type and layout: with changing shapes the compiler would make one for all of them.
        self.loss = torch.compile(LOSSES[kind], dynamic=False) if compiled else LOSSES[kind]

        def numbers(of, scale):
            return (scale * torch.randn(of, device=device)).to(dtype=dtype).contiguous(memory_format=LAYOUTS[layout])
        self.student, self.teacher = numbers(shape, 2), numbers(shape, 2)
        self.student.requires_grad_()
        labels = torch.randint(0, min(shape[1], 19), (shape[0], shape[2], shape[3]), device=device)
        self.extra = labels.masked_fill(torch.rand(labels.shape, device=device) < 0.05, 255)
        if kind == "ka_autoencoder":
            self.extra = numbers([shape[0], (shape[1] + 1) // 2, *shape[2:]], 1).requires_grad_()
        self.run()

    def run(self):
        self.loss(self.student, self.teacher, self.extra).backward()
        self.student.grad = self.extra.grad = None

    def time(self, runs=1):
        """Milliseconds per run."""
        if self.device == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(runs):
                self.run()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / runs
        start = self.clock()
        for _ in range(runs):
            self.run()
        return (self.clock() - start) * 1e3 / runs


class Limbeck:
    """bench_losses; started anew where it has ended, so that a loss that fails costs no other."""

    def __init__(self, command):
        self.command = command
        self.process = None

    def time(self, name, runs=1):
        if self.process is None:
            self.process = subprocess.Popen(self.command + ["--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, text=True)
        said = []
        try:
            self.process.stdin.write(f"{name} {runs}\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith("{"):
                    return statistics.mean(json.loads(line)["ms"])
                said.append(line.strip())  # a warning, or why it ends
        except BrokenPipeError:
            pass
        self.process.wait()
        message = " ".join(said)[-300:] or f"ended with status {self.process.returncode}"
        self.process = None
        raise RuntimeError(f"bench_losses: {message}")

    def close(self):
        if self.process is not None:
            self.process.communicate()


def contenders_of(name, device, ways):
    """By name: each of `ways` (eager, compile) in both layouts; and what those said that do not run."""
    torch._dynamo.reset()  # a loss in many sizes would run into the limit of graphs per function
    if device == "cuda":
        torch.cuda.empty_cache()  # of the loss before, whose sizes may be others
    made, errors = {}, {}
    for layout in LAYOUTS:
        for how in ways:
            try:
                made[f"{how} {layout}"] = PyTorch(name, layout, device, how == "compile")
            except Exception as error:  # memory, the compiler's own errors and its compiler's
                errors[f"{how} {layout}"] = f"{type(error).__name__}: {error}"[:300]
    return made, errors


def turn_length(ms, device):
    return max(1, min(100, round(TURN_MS / ms))) if device == "cuda" else 1


def compare(name, ours, args):
    kind, shape, dtype = parts(name)
    ways = ["compile"] if kind in args.compile or "all" in args.compile else []
    torches, errors = contenders_of(name, args.device, ways if args.warm else ["eager", *ways])
    if args.warm:
        return {"name": name, "ran": list(torches), "errors": errors}
    runs = {who: turn_length(t.time(), args.device) for who, t in torches.items()}
    own_runs = turn_length(ours.time(name), args.device)
    own, times = [], {who: [] for who in torches}
    for _ in range(args.rounds):
        own.append(ours.time(name, own_runs))
        for who, contender in torches.items():
            times[who].append(contender.time(runs[who]))
    result = {"name": name, "loss": kind, "shape": "x".join(map(str, shape)), "dtype": dtype, "rounds": args.rounds,
              "limbeck_ms": round(statistics.median(own), 4),
              "pytorch_ms": {who: round(statistics.median(t), 4) for who, t in times.items()}, "errors": errors}
    for how in ("eager", "compile"):
        ratios = {who: statistics.median(t / o for t, o in zip(times[who], own)) for who in times if who.startswith(how)}
        if ratios:
            best = min(ratios, key=ratios.get)
            result[f"over_{how}"] = round(ratios[best], 2)
            result[f"best_{how}"] = best.split()[1]
            result[f"{how}_ms"] = result["pytorch_ms"][best]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {"type": lambda text: text.split(","), "default": []}
    parser.add_argument("program")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--filter", default="", help="a part of the name")
    parser.add_argument("--only", help="losses, separated by commas", **names)
    parser.add_argument("--skip", help="losses, separated by commas", **names)
    parser.add_argument("--compile", help="losses that torch.compile gets too, or all", **names)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="tiny maps on a GPU: a rehearsal")
    parser.add_argument("--warm", action="store_true", help="compile and end")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    if args.cpu:
        torch.set_num_threads(1)
        PyTorch.clock = staticmethod(time.process_time)
    if args.warm:  # which kernel of several is the fastest is left to the process that is timed
        import torch._inductor.config as inductor

        inductor.autotune_local_cache = False

    command = [args.program] + ["--cpu"] * args.cpu + ["--small"] * args.small
    if args.device == "cuda":
        command += ["--device", "cuda:0"]
    listed = subprocess.run(command + ["--list"], check=True, text=True, capture_output=True).stdout.split()
    chosen = [n for n in listed if args.filter in n and (not args.only or parts(n)[0] in args.only)
              and parts(n)[0] not in args.skip]
    ours = Limbeck(command)
    failed = 0
    for name in chosen:
        try:
            result = compare(name, ours, args)
        except RuntimeError as error:  # of bench_losses, or of PyTorch in the middle
            result = {"name": name, "errors": {"all": str(error)[:500]}}
        failed += bool(result["errors"])
        if args.json or args.warm or "eager_ms" not in result:
            print(json.dumps(result), flush=True)
        else:
            print(f"{name:38s} limbeck {result['limbeck_ms']:8.2f} ms   pytorch {result['eager_ms']:8.2f} ms"
                  f" ({result['best_eager']})   {result['over_eager']:5.2f}x", flush=True)
    ours.close()
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    raise SystemExit(main())
