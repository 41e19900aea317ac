"""Inference of one network in limbeck, ONNX Runtime and PyTorch, turn by turn with the same number of threads.

    compare_inference.py BUILD/tests/bench_inference NAME BATCH SIZE DTYPE ROUNDS [RIVAL ...]

NAME: deeplabv3_resnet50 or mobilenet_v2_seg. Every rival is a process that stays alive and waits between its turns; a round gives every
rival one turn right after limbeck's. Prints medians and the median of the ratios to limbeck's plan in the same round. Rivals, all by
default:

    exact         limbeck's own plan with f32 multiply-adds only (f32 only; see F32Math in ops/packed_conv2d.h)
    onnxruntime   the exported file (f32 only)
    eager         the same layers with random weights, channels-last, batch norm folded; bf16 by autocast
    eager_bf16    the same with weights and input in bf16, without autocast
    compile       torch.compile with frozen parameters, as a server would use it
    compile_bf16  the same with weights and input in bf16

Those of PyTorch run with waiting and with spinning threads where there is more than one (OMP_WAIT_POLICY passive, and unset).
Needs numpy, torch, torchvision and onnxruntime.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
RIVALS = ("exact", "onnxruntime", "eager", "eager_bf16", "compile", "compile_bf16")


def torch_network(name):
    import torchvision
    from torch import nn

    if name == "deeplabv3_resnet50":  # limbeck's default: output stride 16, rates 6, 12, 18
        backbone = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
        body = nn.Sequential(*list(backbone.children())[:-2])
        return nn.Sequential(body, torchvision.models.segmentation.deeplabv3.DeepLabHead(2048, 11, [6, 12, 18]))
    net = torchvision.models.mobilenet_v2().features[:18]
    for m in net[14:].modules():
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3):
            m.stride, m.dilation, m.padding = (1, 1), (2, 2), (2, 2)
    net[14].conv[1][0].dilation = net[14].conv[1][0].padding = (1, 1)
    return nn.Sequential(net, nn.Conv2d(320, 11, 1))


def torch_forward(rival, name, shape, bf16):
    import torch
    from torch.fx.experimental.optimization import fuse

    torch.set_num_threads(THREADS)
    network = fuse(torch_network(name).eval()).to(memory_format=torch.channels_last)
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    autocast = bf16 and not rival.endswith("_bf16")
    if bf16 and not autocast:
        network, x = network.to(torch.bfloat16), x.to(torch.bfloat16)
    if rival.startswith("compile"):
        torch._inductor.config.freezing = True
        network = torch.compile(network)

    def forward():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            network(x)

    return forward


def onnx_forward(file, shape):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return lambda: session.run(None, {"image": image})


def serve(rival, name, batch, size, dtype, file):
    shape = (int(batch), 3, int(size), int(size))
    forward = onnx_forward(file, shape) if rival == "onnxruntime" else torch_forward(rival, name, shape, dtype == "bf16")
    for _ in sys.stdin:
        start = time.perf_counter()
        forward()
        print(f"{1e3 * (time.perf_counter() - start):.3f}", flush=True)


class Contender:
    """A process that runs once per line and prints its milliseconds."""

    def __init__(self, name, command, line, policy):
        self.name, self.line = name, line
        env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        if policy == "passive":
            env["OMP_WAIT_POLICY"] = policy
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self):
        self.process.stdin.write(self.line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return float(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main(program, name, batch, size, dtype, rounds, *chosen):
    known = [r for r in chosen or RIVALS if dtype == "bf16" or not r.endswith("_bf16")]
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "net.onnx")
        arguments = [name, batch, size, dtype]
        ours = Contender("limbeck plan", [program, *arguments, "0", file], "plan", "passive")
        ours.turn()  # the file is there when the first turn is over
        rivals = []
        for rival in known:
            if rival in ("exact", "onnxruntime") and dtype == "bf16":
                continue
            if rival == "exact":
                rivals.append(Contender("limbeck exact", [program, *arguments, "0"], "exact", "passive"))
                continue
            for policy in ("passive", "active") if THREADS > 1 and rival != "onnxruntime" else ("passive",):
                label = rival if THREADS == 1 or rival == "onnxruntime" else f"{rival}, {policy} threads"
                rivals.append(Contender(label, [sys.executable, __file__, "--serve", rival, *arguments, file], "go", policy))
        ratios = {r.name: [] for r in rivals}
        times = {c.name: [] for c in [ours, *rivals]}
        for k in range(int(rounds) + 2):
            for rival in rivals:
                mine, theirs = ours.turn(), rival.turn()
                if k >= 2:  # two rounds to get warm
                    times[ours.name].append(mine)
                    times[rival.name].append(theirs)
                    ratios[rival.name].append(theirs / mine)
        for contender in [ours, *rivals]:
            contender.close()
    print(f"{name} {batch}x3x{size}x{size} {dtype}, {THREADS} thread(s), {rounds} rounds: median ms, median ratio (smallest .. largest)")
    print(f"  {ours.name:30} {statistics.median(times[ours.name]):8.1f}")
    for rival, values in ratios.items():
        print(f"  {rival:30} {statistics.median(times[rival]):8.1f}  x{statistics.median(values):.2f} ({min(values):.2f} .. {max(values):.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    elif len(sys.argv) < 7 or any(r not in RIVALS for r in sys.argv[7:]):
        sys.exit(__doc__)
    else:
        main(*sys.argv[1:])
