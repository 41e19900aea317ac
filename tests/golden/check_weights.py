"""Loads weights that limbeck exports into torchvision's networks, as the README shows, and compares the scores.

    check_weights.py BUILD/tests/export_zoo

Needs torch, torchvision and safetensors. scripts/test.sh runs it where they are installed.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from torch import nn


def student(folder):
    """The lines of apps/README.md, for the narrow network that export_zoo writes."""
    text = (Path(__file__).resolve().parents[2] / "apps" / "README.md").read_text()
    lines = text.split("```python\n")[1].split("```")[0]
    lines = lines.replace("student.pth", str(folder / "model.pth")).replace("width_mult=1.0", "width_mult=0.35")
    scope = {}
    exec(compile(lines, "apps/README.md", "exec"), scope)
    return scope["student"]


def plain(net, state):
    net.load_state_dict(state)
    return net.eval()


def networks(name, folder):
    """The network once with the weights of model.pth and once with those of model.safetensors."""
    if name == "mobilenet_v2_seg":
        yield student(folder)
        return
    make = {
        "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
        "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.35),
    }[name]
    yield plain(make(), torch.load(folder / "model.pth", weights_only=True))
    yield plain(make(), safetensors.torch.load_file(folder / "model.safetensors"))


def main():
    program, bad = sys.argv[1], 0
    for name in ("mobilenet_v2_seg", "resnet18", "mobilenet_v2"):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            subprocess.run([program, name, temporary], check=True)
            expected = safetensors.torch.load_file(folder / "expected.safetensors")
            x, truth = expected["fixed.x"], expected["fixed.y"]
            differences = []
            for net in networks(name, folder):
                with torch.no_grad():
                    y = net(x)
                if y.dim() == 4:
                    y = nn.functional.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)
                differences.append(float((y - truth).abs().max() / truth.abs().max()))
        good = max(differences) < 1e-4
        bad += not good
        print(f"{'ok   ' if good else 'WRONG'} {name}: difference " + ", ".join(f"{d:.1e}" for d in differences))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
