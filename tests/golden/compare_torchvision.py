"""Holds limbeck to torchvision, end to end and in f32: weights written by torch.save, the same batch, no dropout.

  logits    in eval mode, largest difference relative to the largest logit:                          at most 1e-4
  training  five steps of SGD (momentum 0.9, weight decay 1e-4), batch norm on the batch's statistics:
            distance of every parameter and running statistic, relative to its norm:                 at most 1e-3
            the same relative to how far the parameter moved, median of the parameters:              at most 5e-2

Networks: resnet18/34/50/101, mobilenet_v2, deeplabv3_resnet50/101 with auxiliary head (its loss weighs 0.4).

Usage: python compare_torchvision.py PROGRAM [NETWORK...]      PROGRAM: build/tests/compare_torchvision
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

NETWORKS = ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "deeplabv3_resnet50", "deeplabv3_resnet101"]
CLASSES = 7
STEPS = 5
RATE = 0.0005
SIZES = {"mobilenet_v2": 128}    # at 64 its last batch norms would see 16 values per channel
LOGITS_LIMIT = 1e-4
TRAINING_LIMIT = 1e-3
MOVEMENT_LIMIT = 5e-2


def make(name):
    """The network with random weights, batch norms included, at a point where training is well conditioned.

    Random weights as they come are not: gradients grow from layer to layer through 50 batch norms, and two runs of PyTorch itself, in
    f32 and f64, part within five steps (mobilenet_v2, 8 images of 64x64, rate 0.01: by half of a parameter's norm). So the last batch
    norm of a residual branch starts small, the smaller the more branches there are. Depthwise weights start with the fan they have:
    torchvision counts all channels, and behind a batch norm the gradient of such tiny weights is huge.
    """
    torch.manual_seed(1)
    if name.startswith("deeplabv3"):
        net = getattr(torchvision.models.segmentation, name)(
            weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    else:
        net = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.1)
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    blocks = [m for m in net.modules() if isinstance(m, (BasicBlock, Bottleneck, InvertedResidual))]
    for module in blocks:
        last = None
        if isinstance(module, (BasicBlock, Bottleneck)):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
        if isinstance(module, InvertedResidual) and module.use_res_connect:
            last = module.conv[-1]
        if last is not None:
            torch.nn.init.uniform_(last.weight, 1.0 / len(blocks), 3.0 / len(blocks))
    return net


def forward(net, images):
    """Logits and auxiliary logits (or None) at the network's own stride, as limbeck returns them."""
    if not hasattr(net, "classifier") or not hasattr(net, "backbone"):
        return net(images), None
    features = net.backbone(images)
    return net.classifier(features["out"]), net.aux_classifier(features["aux"])


def loss_of(logits, labels):
    if labels.dim() == 3:
        logits = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels)


def reference(net, images, labels):
    net.eval()
    with torch.no_grad():
        logits, aux = forward(net, images)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4)
    for _ in range(STEPS):
        optimizer.zero_grad()
        out, extra = forward(net, images)
        loss = loss_of(out, labels)
        if extra is not None:
            loss = loss + 0.4 * loss_of(extra, labels)
        loss.backward()
        optimizer.step()
    return logits, aux, net.state_dict()


def relative_maximum(a, b):
    return float((a - b).abs().max() / b.abs().max())


def relative_norm(a, b, scale=None):
    return float((a.double() - b.double()).norm() / (b.double().norm() if scale is None else scale))


def compare(program, name, folder):
    start = time.monotonic()
    net = make(name)
    size = SIZES.get(name, 48 if name.startswith("deeplabv3") else 64)
    batch = {"images": torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(2))}
    shape = (4, size, size) if name.startswith("deeplabv3") else (4,)
    batch["labels"] = torch.randint(0, CLASSES, shape, generator=torch.Generator().manual_seed(3))
    torch.save(net.state_dict(), folder / "weights.pth")
    save_file(batch, str(folder / "batch.safetensors"))
    command = [program, name, folder / "weights.pth", folder / "batch.safetensors", folder / "out.safetensors", CLASSES, STEPS, RATE]
    subprocess.run([str(c) for c in command], check=True)
    got = load_file(str(folder / "out.safetensors"))
    start_state = {k: v.clone() for k, v in net.state_dict().items()}
    logits, aux, state = reference(net, batch["images"], batch["labels"])
    logit_error = relative_maximum(got["logits"], logits)
    if aux is not None:
        logit_error = max(logit_error, relative_maximum(got["aux"], aux))
    errors = {k: relative_norm(got["state." + k], v) for k, v in state.items() if v.is_floating_point()}
    worst = max(errors, key=errors.get)
    moved = statistics.median(relative_norm(got["state." + k], v.detach(), (start_state[k] - v.detach()).norm())
                              for k, v in net.named_parameters())
    counts = all(int(got["state." + k]) == int(v) for k, v in state.items() if k.endswith("num_batches_tracked"))
    ok = logit_error <= LOGITS_LIMIT and errors[worst] <= TRAINING_LIMIT and moved <= MOVEMENT_LIMIT and counts
    print(f"{name:20} logits {logit_error:.1e}  after {STEPS} steps {errors[worst]:.1e} ({worst}), "
          f"{moved:.1e} of the movement  {time.monotonic() - start:.0f} s  {'ok' if ok else 'FAILED'}", flush=True)
    return ok


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.use_deterministic_algorithms(True)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}; limits {LOGITS_LIMIT:g} and {TRAINING_LIMIT:g}")
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(sys.argv[1], name, Path(folder)) for name in sys.argv[2:] or NETWORKS]
    sys.exit(0 if all(results) else 1)


main()
