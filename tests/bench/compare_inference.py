"""Inference of one network in limbeck, ONNX Runtime and PyTorch, turn by turn with the same number of threads.

    compare_inference.py BUILD/tests/bench_inference NAME BATCH SIZE DTYPE ROUNDS [--compile]

NAME: deeplabv3_resnet50 or mobilenet_v2_seg. ONNX Runtime gets the exported file (f32 only); PyTorch the same layers with random
weights, channels-last, batch norm folded; --compile: torch.compile too. Prints medians and the median of the ratios to limbeck's plan.
Needs numpy, torch, torchvision and onnxruntime.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse

threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))


def torch_network(name):
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


def main():
    arguments = [a for a in sys.argv[1:] if a != "--compile"]
    program, name, batch, size, dtype, rounds = arguments
    shape, bf16 = (int(batch), 3, int(size), int(size)), dtype == "bf16"
    torch.set_num_threads(threads)
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    net = fuse(torch_network(name).eval()).to(memory_format=torch.channels_last)
    variants = {"PyTorch eager": net}
    if "--compile" in sys.argv:
        variants["PyTorch compiled"] = torch.compile(net)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        server = subprocess.Popen([program, name, batch, size, dtype, "0", str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(what):
            server.stdin.write(what + "\n")
            server.stdin.flush()
            return float(server.stdout.readline())

        turns = {"limbeck module": lambda: ask("module"), "limbeck plan": lambda: ask("plan")}
        ask("plan")  # the file is there when the first turn is over

        def timed(run):
            def turn():
                start = time.perf_counter()
                run()
                return 1e3 * (time.perf_counter() - start)

            return turn

        if not bf16:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            image = np.ascontiguousarray(x.numpy())
            turns["ONNX Runtime"] = timed(lambda: session.run(None, {"image": image}))
        for variant, network in variants.items():

            def forward(network=network):
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    network(x)

            turns[variant] = timed(forward)

        times = {k: [] for k in turns}
        for k in range(int(rounds) + 2):
            for turn, run in turns.items():
                ms = run()
                if k >= 2:  # two rounds to get warm
                    times[turn].append(ms)
        server.stdin.close()
        server.wait()
    print(f"{name} {batch}x3x{size}x{size} {dtype}, {threads} threads, {rounds} rounds")
    for turn, ms in times.items():
        ratio = statistics.median(a / b for a, b in zip(ms, times["limbeck plan"]))
        print(f"  {turn:17} {statistics.median(ms):8.1f} ms   x{ratio:.2f}")


if __name__ == "__main__":
    main()
