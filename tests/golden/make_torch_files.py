"""Writes the small PyTorch files of tests/test_torch_file.cpp and, as safetensors, what must be read from them.

Needs torch, safetensors and numpy:  python3 tests/golden/make_torch_files.py
"""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent / "torch_files"


def tensors():
    torch.manual_seed(3)
    base = torch.randn(40)
    return OrderedDict(
        [
            ("f32", torch.randn(2, 3)),
            ("f64", torch.randn(5, dtype=torch.float64)),
            ("f16", torch.randn(7).half()),
            ("bf16", torch.randn(7).bfloat16()),
            ("i64", torch.arange(-2, 4)),
            ("i32", torch.arange(5, dtype=torch.int32)),
            ("i16", torch.arange(-3, 3, dtype=torch.int16)),
            ("i8", torch.arange(-3, 3, dtype=torch.int8)),
            ("u8", torch.arange(250, 256).to(torch.uint8)),
            ("bool", torch.tensor([True, False, True])),
            ("scalar", torch.tensor(3.5)),
            ("empty", torch.zeros(0, 4)),
            ("shared.whole", base),
            ("shared.part", base[10:30].view(4, 5)),
            ("shared.transposed", base[:12].view(3, 4).t()),
            ("conv.weight", torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)),
            ("num_batches_tracked", torch.tensor(12)),
        ]
    )


def expected(dictionary):
    wide = {torch.float16: torch.float32, torch.int16: torch.int32, torch.int8: torch.int32}
    return {k: v.detach().to(wide.get(v.dtype, v.dtype)).clone().contiguous() for k, v in dictionary.items()}


class Callable:
    """A pickle that would run a command when it is loaded with Python."""

    def __reduce__(self):
        return os.system, ("echo a weight file must never run code",)


def hostile_zip(path, pickle_bytes, entries=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        archive.writestr("archive/version", "3\n")
        for name, data in entries:
            archive.writestr(f"archive/data/{name}", data)


def main():
    OUT.mkdir(exist_ok=True)
    d = tensors()
    save_file(expected(d), OUT / "expected.safetensors")
    torch.save(d, OUT / "zip.pth")
    torch.save(d, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    parameters = {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in d.items()}
    torch.save({"epoch": 3, "arch": "x", "best": 0.5, "state_dict": parameters, "optimizer": {"lr": [0.1, None], "betas": (0.9, 0.99)}},
               OUT / "wrapped.pth")
    torch.save({"model": {"state_dict": {"w": torch.ones(2)}}, "optimizer": {"m": torch.zeros(3)}}, OUT / "nested_legacy.pth",
               _use_new_zipfile_serialization=False)
    linear = torch.nn.Linear(2, 2)
    torch.save(linear, OUT / "whole_module.pth")  # refused: it is code, not a dictionary
    hostile_zip(OUT / "callable.pth", pickle.dumps({"w": Callable()}, protocol=2))
    hostile_zip(OUT / "bomb.pth", pickle.dumps({}, protocol=2), [("0", b"\0" * (40 << 20))], zipfile.ZIP_DEFLATED)

    # A tensor with huge sizes and stride 0: a few bytes that describe petabytes.
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, OUT / "expanded.pth")
    for file in sorted(OUT.iterdir()):
        print(f"{file.stat().st_size:8} {file.name}")


if __name__ == "__main__":
    main()
