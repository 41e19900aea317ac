"""Writes modules.json: what PyTorch computes with the modules of models/ that torchvision does not have, in f64.

Each module is written here a second time, from the papers, in plain PyTorch. Weights, buffers and inputs come from formula.py;
long tensors are stored as norm, projection and a few elements.

Usage: python make_modules.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from formula import parameter, projection, uniform

torch.set_default_dtype(torch.float64)


def fill(module):
    """Weights from their names; running statistics that are neither 0 nor 1; power-iteration vectors from their names."""
    with torch.no_grad():
        for key, p in module.named_parameters():
            p.copy_(torch.from_numpy(parameter(key, tuple(p.shape)).astype(np.float64)))
        for key, b in module.named_buffers():
            if key.endswith("running_mean"):
                b.copy_(torch.from_numpy(uniform(key, tuple(b.shape), -0.2, 0.2)))
            elif key.endswith("running_var"):
                b.copy_(torch.from_numpy(uniform(key, tuple(b.shape), 0.5, 1.5)))
            elif key.endswith(("weight_u", "weight_v")):
                b.copy_(torch.from_numpy(uniform(key, tuple(b.shape), -1.0, 1.0)))
    return module


def tensor(name, shape):
    return torch.from_numpy(uniform(name, shape, -2.0, 2.0).astype(np.float32).astype(np.float64))


def numpy(t):
    return t.detach().double().numpy()


def summary(name, t):
    values = numpy(t)
    flat = values.ravel()
    picks = [i * (flat.size - 1) // 3 for i in range(4)]
    return {"norm": float(np.linalg.norm(flat)), "projection": projection(name, values), "elements": [float(flat[i]) for i in picks]}


def record(module, shape, training):
    """One pass with gradient `uniform("seed")`, then the buffers, then an eval pass."""
    fill(module).train(training)
    x = tensor("input", shape).requires_grad_()
    y = module(x)
    y.backward(torch.from_numpy(uniform("seed", tuple(y.shape))))
    gradients = {k: summary(k, p.grad) for k, p in module.named_parameters()}
    gradients["input"] = summary("input", x.grad)
    buffers = {k: summary(k, b) for k, b in module.named_buffers() if b.is_floating_point()}
    module.eval()
    with torch.no_grad():
        after = module(x)
    return {"shape": list(shape), "output_shape": list(y.shape), "output": summary("output", y), "gradients": gradients,
            "buffers": buffers, "eval": summary("eval", after)}


class SelfAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        q, k, v = (f(x).flatten(2) for f in (self.query_conv, self.key_conv, self.value_conv))
        weights = torch.einsum("ncq,nck->nqk", q, k).softmax(-1)
        return x + self.gamma * torch.einsum("nck,nqk->ncq", v, weights).view_as(x)


class Discriminator(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.preprocess = nn.BatchNorm2d(classes)
        widths = [classes, 64, 128, 256, 512]
        for i in range(4):
            conv = nn.utils.spectral_norm(nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1))
            setattr(self, f"l{i + 1}", nn.Sequential(conv, nn.LeakyReLU(0.1)))
        self.attn1, self.attn2 = SelfAttention(256), SelfAttention(512)
        self.last = nn.Sequential(nn.Conv2d(512, 1, 4))

    def forward(self, x):
        x = self.l3(self.l2(self.l1(self.preprocess(x))))
        return self.last(self.attn2(self.l4(self.attn1(x))))


def record_penalty(classes, shape):
    """WGAN-GP's penalty on the discriminator and its gradients, by double backward."""
    module = fill(Discriminator(classes)).train()
    x = tensor("input", shape).requires_grad_()
    scores = module(x)
    (g,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    penalty = ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()
    penalty.backward()
    gradients = {k: summary(k, p.grad) for k, p in module.named_parameters() if k != "last.0.bias"}
    buffers = {k: summary(k, b) for k, b in module.named_buffers() if b.is_floating_point()}
    return {"shape": list(shape), "penalty": penalty.item(), "gradients": gradients, "buffers": buffers}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    modules = {
        "spectral_norm": record(nn.utils.spectral_norm(nn.Conv2d(5, 6, 4, 2, 1)), (2, 5, 9, 11), True),
        "self_attention": record(SelfAttention(16), (2, 16, 3, 5), True),
        "discriminator": record(Discriminator(5), (2, 5, 64, 80), True),
        "gradient_penalty": record_penalty(5, (2, 5, 64, 80)),
    }
    (folder / "modules.json").write_text(json.dumps(modules, indent=0) + "\n")
    print({k: v["shape"] for k, v in modules.items()})


main()
