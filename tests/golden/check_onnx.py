"""Runs what limbeck exports in ONNX Runtime and compares with what limbeck computed.

    check_onnx.py BUILD/tests/export_zoo [NAME...]

Every network of the zoo is written twice: fixed (folded batch norm, fixed sizes, scores at the size of the input, opset 17) and free
(batch norm kept, free batch and size, input scaling inside, opset 13; run at another size than the one it was written at).
Needs numpy and onnxruntime. scripts/test.sh runs it where they are installed.
"""
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime


def load(path):
    """float32 tensors of a safetensors file"""
    data = Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            out[name] = np.frombuffer(data[8 + size + begin : 8 + size + end], "<f4").reshape(entry["shape"])
    return out


def check(folder, variant, expected):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / f"{variant}.onnx"), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"image": expected[f"{variant}.x"]})
    truth = expected[f"{variant}.y"]
    if y.shape != truth.shape:
        return f"{variant}: shape {y.shape}, expected {truth.shape}", False
    difference = np.abs(y - truth).max() / np.abs(truth).max()
    agreement = (y.argmax(1) == truth.argmax(1)).mean()
    good = difference < 5e-4 and agreement >= 0.9999
    return f"{variant}: difference {difference:.1e}, argmax {100 * agreement:.3f} %", good


def main():
    program, names = sys.argv[1], sys.argv[2:]
    names = names or subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    bad = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([program, name, folder], check=True)
            expected = load(Path(folder) / "expected.safetensors")
            results = [check(Path(folder), variant, expected) for variant in ("fixed", "free")]
        good = all(r[1] for r in results)
        bad += not good
        print(f"{'ok   ' if good else 'WRONG'} {name}: " + "; ".join(r[0] for r in results), flush=True)
    print(f"{len(names) - bad} of {len(names)} networks agree in ONNX Runtime {onnxruntime.__version__}")
    return 1 if bad or not names else 0


if __name__ == "__main__":
    sys.exit(main())
