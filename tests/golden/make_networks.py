"""Writes networks.json: what PyTorch and torchvision compute with whole networks, in f64.

Per network: logits, loss and every parameter's gradient of one training-mode pass, running statistics after it, eval-mode
logits, then the losses of ten steps and the final parameters with SGD, Nesterov SGD and AdamW. Weights, input and labels
come from formula.py. Long tensors are stored as norm, projection and a few elements.

The file also holds "f32_deviation": how far PyTorch's own f32 run is from its f64 run. It tells how much of a difference
is rounding; tests/test_golden_networks.cpp allows limbeck's f32 kernels a small multiple.

Usage: python make_networks.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from formula import parameter, projection, uniform

CLASSES = 10
SHAPE = (2, 3, 64, 64)
STEPS = 10
OPTIMIZERS = {
    "sgd": (0.01, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-3)),
    "nesterov": (0.01, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-3, nesterov=True)),
    "adamw": (0.001, lambda p: torch.optim.AdamW(p, lr=0.001, weight_decay=0.02)),
}


def build(name, dtype):
    options = {"dropout": 0.0} if name == "mobilenet_v2" else {}
    net = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **options)
    with torch.no_grad():
        for key, p in net.named_parameters():
            p.copy_(torch.from_numpy(parameter(key, tuple(p.shape))))
    return net.to(dtype).train()


def batch(dtype):
    x = torch.from_numpy(uniform("input", SHAPE, -2.0, 2.0).astype(np.float32)).to(dtype)
    labels = torch.from_numpy(np.floor(uniform("labels", SHAPE[:1], 0.0, CLASSES)).astype(np.int64))
    return x, labels


def numpy(t):
    return t.detach().double().numpy()


def summary(name, t):
    values = numpy(t)
    flat = values.ravel()
    picks = [i * (flat.size - 1) // 3 for i in range(4)]
    return {"norm": float(np.linalg.norm(flat)), "projection": projection(name, values), "elements": [float(flat[i]) for i in picks]}


def record(name, dtype):
    net = build(name, dtype)
    x, labels = batch(dtype)
    logits = net(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    out = {
        "classes": CLASSES,
        "shape": SHAPE,
        "logits": numpy(logits).ravel().tolist(),
        "loss": loss.item(),
        "gradients": {k: summary(k, p.grad) for k, p in net.named_parameters()},
        "running": {k: summary(k, b) for k, b in net.named_buffers() if b.is_floating_point()},
    }
    net.eval()
    with torch.no_grad():
        out["eval_logits"] = numpy(net(x)).ravel().tolist()
    for key, (rate, make) in OPTIMIZERS.items():
        net = build(name, dtype)
        optimizer = make(net.parameters())
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        final = {k: projection(k, numpy(p)) for k, p in net.named_parameters()}
        movement = {k: float(np.linalg.norm(numpy(p) - parameter(k, tuple(p.shape)))) for k, p in net.named_parameters()}
        out[key] = {"lr": rate, "losses": losses, "final": final, "movement": movement}
    return out


def deviation(a, b):
    """Largest difference relative to the size of the quantity it belongs to."""
    relative = lambda u, v: float(np.max(np.abs(np.subtract(u, v))) / max(np.max(np.abs(v)), 1e-12))
    result = {"logits": relative(a["logits"], b["logits"]), "eval_logits": relative(a["eval_logits"], b["eval_logits"])}
    for part in ("gradients", "running"):
        result[part] = max(abs(a[part][k]["projection"] - v["projection"]) / max(v["norm"], 1e-12) for k, v in b[part].items())
    for key in OPTIMIZERS:
        result[key] = {
            "losses": relative(a[key]["losses"], b[key]["losses"]),
            "final": max(abs(a[key]["final"][k] - v) / b[key]["movement"][k] for k, v in b[key]["final"].items()),
        }
    return result


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    networks = {}
    for name in ("resnet18", "mobilenet_v2"):
        exact = record(name, torch.float64)
        exact["f32_deviation"] = deviation(record(name, torch.float32), exact)
        networks[name] = exact
        print(name, json.dumps(exact["f32_deviation"], indent=1), exact["sgd"]["losses"], exact["nesterov"]["losses"], exact["adamw"]["losses"])
    check = {"fnv1a64": "af63dc4c8601ec8c", "a": uniform("a", (3,), 0.0, 1.0).tolist(), "conv": parameter("c.weight", (2, 1, 1, 1)).ravel().tolist()}
    (folder / "networks.json").write_text(json.dumps({"formula": check, "networks": networks}, indent=0) + "\n")


main()
