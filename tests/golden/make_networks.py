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
SHAPES = {"resnet18": (2, 3, 48, 48), "mobilenet_v2": (4, 3, 64, 64)}  # small: f64 reference kernels are slow
STEPS = 10
# Small enough rates that rounding differences do not blow up within ten steps: the untrained MobileNetV2 is touchy.
RATES = {"resnet18": {"sgd": 2e-4, "nesterov": 2e-4, "adamw": 2e-5}, "mobilenet_v2": {"sgd": 1e-5, "nesterov": 1e-5, "adamw": 5e-6}}
OPTIMIZERS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=1.0),
}


def build(name, dtype):
    options = {"dropout": 0.0} if name == "mobilenet_v2" else {}
    net = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **options)
    with torch.no_grad():
        for key, p in net.named_parameters():
            p.copy_(torch.from_numpy(parameter(key, tuple(p.shape))))
    return net.to(dtype).train()


def batch(shape, dtype):
    x = torch.from_numpy(uniform("input", shape, -2.0, 2.0).astype(np.float32)).to(dtype)
    labels = torch.from_numpy(np.floor(uniform("labels", shape[:1], 0.0, CLASSES)).astype(np.int64))
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
    x, labels = batch(SHAPES[name], dtype)
    logits = net(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    out = {
        "classes": CLASSES,
        "shape": SHAPES[name],
        "logits": numpy(logits).ravel().tolist(),
        "loss": loss.item(),
        "gradients": {k: summary(k, p.grad) for k, p in net.named_parameters()},
        "running": {k: summary(k, b) for k, b in net.named_buffers() if b.is_floating_point()},
    }
    net.eval()
    with torch.no_grad():
        out["eval_logits"] = numpy(net(x)).ravel().tolist()
    for key, make in OPTIMIZERS.items():
        net = build(name, dtype)
        rate = RATES[name][key]
        optimizer = make(net.parameters(), rate)
        losses, projections = [], []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            projections.append({k: projection(k, numpy(p)) for k, p in net.named_parameters()})
        movement = {k: float(np.linalg.norm(numpy(p) - parameter(k, tuple(p.shape)))) for k, p in net.named_parameters()}
        out[key] = {"lr": rate, "losses": losses, "after_3": projections[2], "final": projections[-1], "movement": movement}
    return out


def null_gradients(exact):
    """Parameters whose exact gradient is 0: a shift in front of a batch norm. Only rounding noise moves them under AdamW."""
    norms = {k: v["norm"] for k, v in exact["gradients"].items()}
    largest = max(norms.values())
    return [k for k, n in norms.items() if n < 1e-9 * largest]


def deviation(a, b):
    """Largest difference between runs, relative to the size of the quantity it belongs to."""
    relative = lambda u, v: float(np.max(np.abs(np.subtract(u, v))) / np.max(np.abs(v)))
    result = {"logits": relative(a["logits"], b["logits"]), "eval_logits": relative(a["eval_logits"], b["eval_logits"])}
    for part in ("gradients", "running"):
        floor = 1e-3 * max(v["norm"] for v in b[part].values())
        result[part] = max(abs(a[part][k]["projection"] - v["projection"]) / max(v["norm"], floor) for k, v in b[part].items())
    for key in OPTIMIZERS:
        result[key] = {
            "losses": [abs(u - v) / v for u, v in zip(a[key]["losses"], b[key]["losses"])],
            "final": max(abs(a[key]["final"][k] - v) / b[key]["movement"][k] for k, v in b[key]["final"].items()
                         if k not in b["null_gradients"]),
        }
    return result


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    networks = {}
    for name in ("resnet18", "mobilenet_v2"):
        exact = record(name, torch.float64)
        exact["null_gradients"] = null_gradients(exact)
        exact["f32_deviation"] = deviation(record(name, torch.float32), exact)
        networks[name] = exact
        print(name, json.dumps(exact["f32_deviation"], indent=1), exact["sgd"]["losses"], exact["nesterov"]["losses"], exact["adamw"]["losses"])
    check = {"fnv1a64": "af63dc4c8601ec8c", "a": uniform("a", (3,), 0.0, 1.0).tolist(), "conv": parameter("c.weight", (2, 1, 1, 1)).ravel().tolist()}
    (folder / "networks.json").write_text(json.dumps({"formula": check, "networks": networks}, indent=0) + "\n")


main()
