"""Writes models.json: the state_dict entries (name and shape, in order) of torchvision networks.

Parameters and buffers are told apart, so that tests/test_golden_models.cpp can compare both lists and their order.

Usage: python make_models.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import torch
from torchvision import models
from torchvision.models.segmentation import deeplabv3_resnet50

CLASSES = 21

with torch.device("meta"):
    networks = {
        "resnet18": models.resnet18(num_classes=1000),
        "resnet34": models.resnet34(num_classes=1000),
        "resnet50": models.resnet50(num_classes=1000),
        "resnet101": models.resnet101(num_classes=1000),
        "mobilenet_v2": models.mobilenet_v2(num_classes=1000),
        "deeplabv3_resnet50": deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True),
    }

out = {
    name: {
        "parameters": [[k, list(p.shape)] for k, p in net.named_parameters()],
        "buffers": [[k, list(b.shape)] for k, b in net.named_buffers()],
        "parameter_count": sum(p.numel() for p in net.parameters()),
    }
    for name, net in networks.items()
}
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in out.items())
(folder / "models.json").write_text("{\n" + lines + "\n}\n")
print({name: (len(e["parameters"]) + len(e["buffers"]), e["parameter_count"]) for name, e in out.items()})
