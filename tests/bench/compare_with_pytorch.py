"""Runs `limbeck bench step` and pytorch_step.py in turns and prints the ratio of their step times.

Why in turns: on a shared machine the speed of everything drifts by a factor within minutes. Each round times a few
steps of every contender right after each other; only ratios inside a round are compared, and the median over the
rounds is the result.

Called by scripts/bench_vs_pytorch.sh, which documents the options.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEP = HERE / "pytorch_step.py"
DTYPES = ("f32", "bf16")


def environment(policy):
    env = dict(os.environ)
    env.pop("OMP_WAIT_POLICY", None)
    if policy == "passive":
        env["OMP_WAIT_POLICY"] = "passive"
    return env


class Contender:
    """A process that stays alive; between its turns it waits for a line on its standard input."""

    def __init__(self, name, policy, command):
        self.name, self.policy = name, policy
        self.errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would block a talkative process
        self.process = subprocess.Popen(command, env=environment(policy), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)
        self.ready = self.read()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print, too
                return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        error = self.errors.read().strip().splitlines()
        raise RuntimeError(f"{self.name} ended with status {self.process.returncode}: {error[-1] if error else 'no message'}")

    def steps(self, count):
        try:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # read() says why
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()
        self.errors.close()


class PyTorch(Contender):
    def __init__(self, mode, policy, warmup, problem=()):
        self.mode = mode
        super().__init__(f"pytorch {mode} ({policy} threads)", policy,
                         [sys.executable, str(STEP), "--mode", mode, "--warmup", str(warmup), "--serve", *problem])


class Limbeck(Contender):
    def __init__(self, program, what, dtype, policy, warmup, problem=()):
        super().__init__(f"limbeck {dtype} ({policy} threads)", policy,
                         [program, "bench", what, "--dtype", dtype, "--serve", "--warmup", str(warmup), *problem])

    def steps(self, count):
        reply = super().steps(count)
        reply["peak_mb"] = reply["peak_rss_mb" if self.ready["device"] == "cpu" else "peak_tensor_mb"]
        return reply


def explore(modes, passes, steps, warmup, problem):
    """Median step time of every PyTorch mode, `passes` visits each, in turns."""
    times = {m: [] for m in modes}
    peak = {}
    for number in range(passes):
        for mode in modes:
            try:
                contender = PyTorch(mode, "passive", warmup, problem.rival)
                reply = contender.steps(steps)
            except RuntimeError as error:  # a mode that this version of PyTorch cannot run
                print(json.dumps({"mode": mode, "error": str(error)[:300]}), flush=True)
                continue
            contender.close()
            times[mode] += reply["ms"]
            peak[mode] = reply["peak_mb"]
            print(json.dumps({"pass": number + 1, **{k: reply[k] for k in ("mode", "ms", "teacher_ms", "peak_mb")}}),
                  flush=True)
    medians = {m: statistics.median(t) for m, t in times.items() if t}
    print(f"\n{'PyTorch mode (layout, type, student, teacher)':48} {'median ms':>9} {'min ms':>8} {'peak MB':>8}")
    for mode, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"{mode:48} {median:9.0f} {min(times[mode]):8.0f} {peak[mode]:8.0f}")
    return medians


def started(modes, warmup, problem):
    """The contenders that this version of PyTorch can run."""
    contenders = []
    for mode, policy in modes:
        try:
            contenders.append(PyTorch(mode, policy, warmup, problem.rival))
        except RuntimeError as error:
            print(json.dumps({"mode": mode, "error": str(error)[:300]}), flush=True)
    return contenders


class Problem:
    """Device and sizes where they are not those of the programs: arguments for both sides."""

    def __init__(self, args):
        self.what = args.what
        self.own, self.rival = [], ["--what", args.what]
        if args.device == "cuda":
            self.own += ["--device", "cuda:0"] + ["--cuda-graph"] * (not args.launched)
            self.rival += ["--device", "cuda"]
        if args.batch:
            self.own += ["--batch", str(args.batch)]
            self.rival += ["--batch", str(args.batch)]
        if args.size:
            self.own += ["--size", f"{args.size}x{args.size}"]
            self.rival += ["--size", str(args.size)]
        if args.classes:
            self.own += ["--classes", str(args.classes)]
            self.rival += ["--classes", str(args.classes)]


def summary(what, dtype, rival, ours, ratios, times, peak):
    """What the rounds so far say."""
    return {"what": what, "dtype": dtype, "mode": rival.mode, "policy": rival.policy, "rounds": len(ratios),
            "ratio": round(statistics.median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3),
            "limbeck_ms": round(statistics.median(times[ours.name]), 3),
            "pytorch_ms": round(statistics.median(times[rival.name]), 3),
            "limbeck_mb": peak[ours.name], "pytorch_mb": peak[rival.name],
            "limbeck_first_step_seconds": ours.ready["first_step_seconds"],
            "pytorch_first_step_seconds": rival.ready["first_step_seconds"], "torch": rival.ready["torch"]}


def duel(program, dtype, modes, rounds, steps, warmup, problem):
    """True if there was one."""
    contenders = started(modes, warmup, problem)
    if not contenders:
        print(json.dumps({"dtype": dtype, "error": "no mode of PyTorch runs"}), flush=True)
        return False
    own = {policy: Limbeck(program, problem.what, dtype, policy, warmup, problem.own)
           for policy in dict.fromkeys(c.policy for c in contenders)}
    ratios = {c.name: [] for c in contenders}
    times = {c.name: [] for c in [*own.values(), *contenders]}
    peak = {}
    for number in range(rounds):
        for rival in contenders:  # A B A B: each rival is paired with a run of ours next to it, with the same policy
            ours = own[rival.policy]
            mine, theirs = ours.steps(steps), rival.steps(steps)
            times[ours.name] += mine["ms"]
            times[rival.name] += theirs["ms"]
            peak[ours.name], peak[rival.name] = mine["peak_mb"], theirs["peak_mb"]
            ratios[rival.name].append(statistics.median(theirs["ms"]) / statistics.median(mine["ms"]))
            print(json.dumps({"round": number + 1, "rival": rival.name, "limbeck_turn_ms": mine["ms"],
                              "pytorch_turn_ms": theirs["ms"]}), flush=True)
            print(json.dumps(summary(problem.what, dtype, rival, ours, ratios[rival.name], times, peak)), flush=True)
    for c in [*own.values(), *contenders]:
        c.close()
    print(f"\n{dtype}: {rounds} rounds of {steps} steps")
    for name, t in times.items():
        ratio = ""
        if ratios.get(name):
            r = ratios[name]
            ratio = f"  limbeck is {statistics.median(r):.2f}x as fast (rounds {min(r):.2f} to {max(r):.2f})"
        print(f"  {name:66} median {statistics.median(t):7.1f} ms  peak {peak[name]:6.0f} MB{ratio}")
    fastest = min(ratios, key=lambda n: statistics.median(ratios[n]))
    print(f"  the fastest rival: {fastest}", flush=True)
    return len(contenders) == len(modes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limbeck", default="")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=0, help="0: that of `limbeck bench step`")
    parser.add_argument("--size", type=int, default=0, help="of square pictures; 0: likewise")
    parser.add_argument("--classes", type=int, default=0, help="0: likewise")
    parser.add_argument("--what", choices=("step", "student"), default="step", help="student: without the teacher")
    parser.add_argument("--launched", action="store_true", help="on a GPU: limbeck launches its kernels one by one")
    parser.add_argument("--explore-only", action="store_true")
    parser.add_argument("--mode", action="append", help="skip the exploration and duel with these PyTorch modes")
    args = parser.parse_args()
    problem = Problem(args)

    if args.mode:
        medians = {m: 0.0 for m in args.mode}
    else:
        modes = subprocess.run([sys.executable, str(STEP), "--list", "--device", args.device], check=True, text=True,
                               capture_output=True).stdout.split()
        if args.dtype:
            modes = [m for m in modes if m.split(",")[1] in args.dtype]
        medians = explore(modes, args.passes, max(args.steps, 5), args.warmup, problem)
    if args.explore_only:
        return 0
    complete = True
    for dtype in args.dtype or DTYPES:
        own = sorted((v, m) for m, v in medians.items() if m.split(",")[1] == dtype)
        if not own:
            continue
        # The two best modes of the exploration (their order is noisy) or all named ones, each with both thread policies.
        best = [m for _, m in (own if args.mode else own[:2])]
        policies = ("passive",) if args.device == "cuda" else ("passive", "default")
        chosen = [(m, policy) for m in best for policy in policies]
        complete = duel(args.limbeck, dtype, chosen, args.rounds, args.steps, args.warmup, problem) and complete
    return 0 if complete else 1


if __name__ == "__main__":
    raise SystemExit(main())
