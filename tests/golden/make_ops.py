"""Writes ops.safetensors and ops.json: inputs, results and gradients of single operations, computed by PyTorch.

Inputs are f32 numbers; PyTorch computes with them in f64, so the expected values are exact to about 1e-15 and the f64
reference kernels of limbeck can be held to 1e-10, the f32 kernels to their own tolerance.

ops.json is a list of cases {"name", "op", "options", "inputs", "outputs", "grads"}. The tensor of an input is called
"NAME/INPUT" in ops.safetensors, an output "NAME/OUTPUT", the gradient that arrives at the first output "NAME/gy", the
gradient of an input "NAME/grad.INPUT". tests/test_golden_ops.cpp runs all of them.

Usage: python make_ops.py [FOLDER]     (default: this folder)
"""

import json
import sys
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

CASES = []
TENSORS = {}


def normal(generator, *shape, scale=1.0):
    """f32 numbers with 12 significant bits, so that the file compresses and bf16 tests lose little."""
    x = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
    return (x * 1024).round() / 1024


def add(name, op, options, inputs, function, fixed=(), extra=None):
    """`function(inputs) -> result`; `fixed`: inputs without gradient; `extra(inputs)`: more outputs, by name."""
    g = torch.Generator().manual_seed(zlib.crc32(name.encode()))  # hash() changes between runs
    leaves = {}
    for key, value in inputs.items():
        value = value(g) if callable(value) else value
        if value.is_floating_point():
            value = value.double().float().double().requires_grad_(key not in fixed)
        leaves[key] = value
    result = function(leaves)
    gy = normal(g, *result.shape) if result.dim() > 0 else torch.tensor(0.75, dtype=torch.float64)
    result.backward(gy)
    outputs = {"y": result.detach()}
    if extra is not None:
        outputs.update(extra(leaves))
    grads = [k for k, v in leaves.items() if v.is_floating_point() and k not in fixed]
    CASES.append({"name": name, "op": op, "options": options, "inputs": list(leaves), "outputs": list(outputs), "grads": grads})
    for key, value in leaves.items():
        value = value.detach()
        TENSORS[f"{name}/{key}"] = value.float().contiguous() if value.is_floating_point() else value.contiguous()
    for key, value in outputs.items():
        TENSORS[f"{name}/{key}"] = value.double().contiguous()
    TENSORS[f"{name}/gy"] = gy.contiguous()
    for key in grads:
        TENSORS[f"{name}/grad.{key}"] = leaves[key].grad.contiguous()


def shaped(*shape, scale=1.0):
    return lambda g: normal(g, *shape, scale=scale)


# --- convolutions ---------------------------------------------------------------------------------------------------

def conv(name, x, w, bias=True, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    inputs = {"x": shaped(*x), "w": shaped(*w, scale=0.5)}
    if bias:
        inputs["b"] = shaped(w[0])
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    add(name, "conv2d", options, inputs, lambda t: F.conv2d(t["x"], t["w"], t.get("b"), **options))


def conv_t(name, x, w, bias=True, stride=(1, 1), padding=(0, 0), output_padding=(0, 0), dilation=(1, 1), groups=1):
    inputs = {"x": shaped(*x), "w": shaped(*w, scale=0.5)}
    if bias:
        inputs["b"] = shaped(w[1] * groups)
    options = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation, "groups": groups}
    add(name, "conv_transpose2d", options, inputs, lambda t: F.conv_transpose2d(t["x"], t["w"], t.get("b"), **options))


conv("conv_1x1", (2, 5, 4, 3), (7, 5, 1, 1))
conv("conv_1x1_one_pixel", (1, 3, 1, 1), (2, 3, 1, 1))
conv("conv_1x1_stride2", (1, 4, 5, 7), (6, 4, 1, 1), bias=False, stride=(2, 2))
conv("conv_3x3_pad1", (2, 3, 6, 5), (4, 3, 3, 3), padding=(1, 1))
conv("conv_3x3_stride2_nobias", (2, 4, 7, 8), (5, 4, 3, 3), bias=False, stride=(2, 2), padding=(1, 1))
conv("conv_3x3_dilation2", (1, 3, 9, 8), (4, 3, 3, 3), padding=(2, 2), dilation=(2, 2))
conv("conv_3x3_dilation6_small_map", (1, 2, 5, 5), (3, 2, 3, 3), padding=(6, 6), dilation=(6, 6))
conv("conv_7x7_stem", (1, 3, 11, 13), (4, 3, 7, 7), bias=False, stride=(2, 2), padding=(3, 3))
conv("conv_asymmetric", (2, 3, 8, 9), (4, 3, 1, 5), stride=(2, 3), padding=(0, 4), dilation=(1, 2))
conv("conv_even_kernel", (1, 2, 6, 6), (3, 2, 4, 2), stride=(2, 1), padding=(1, 0))
conv("conv_valid", (1, 3, 5, 4), (2, 3, 5, 4))
conv("conv_groups2", (2, 6, 5, 5), (4, 3, 3, 3), padding=(1, 1), groups=2)
conv("conv_groups3_stride2", (1, 9, 7, 6), (6, 3, 3, 3), bias=False, stride=(2, 2), padding=(1, 1), groups=3)
conv("depthwise_3x3", (2, 19, 6, 5), (19, 1, 3, 3), bias=False, padding=(1, 1), groups=19)
conv("depthwise_3x3_stride2", (1, 8, 7, 9), (8, 1, 3, 3), stride=(2, 2), padding=(1, 1), groups=8)
conv("depthwise_3x3_dilation2", (1, 11, 7, 6), (11, 1, 3, 3), bias=False, padding=(2, 2), dilation=(2, 2), groups=11)
conv("depthwise_5x5", (1, 5, 6, 7), (5, 1, 5, 5), padding=(2, 2), groups=5)
conv("depthwise_one_pixel", (2, 4, 1, 1), (4, 1, 3, 3), padding=(1, 1), groups=4)
conv("depthwise_multiplier2", (1, 3, 5, 5), (6, 1, 3, 3), padding=(1, 1), groups=3)

conv_t("deconv_1x1", (1, 3, 4, 4), (3, 2, 1, 1))
conv_t("deconv_3x3", (2, 4, 4, 5), (4, 3, 3, 3), padding=(1, 1))
conv_t("deconv_3x3_stride2", (1, 3, 4, 3), (3, 2, 3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1))
conv_t("deconv_4x4_stride2_nobias", (2, 2, 3, 4), (2, 3, 4, 4), bias=False, stride=(2, 2), padding=(1, 1))
conv_t("deconv_dilation2", (1, 2, 4, 4), (2, 3, 3, 3), padding=(1, 1), dilation=(2, 2))
conv_t("deconv_asymmetric", (1, 3, 3, 5), (3, 2, 3, 2), stride=(3, 2), padding=(1, 0), output_padding=(2, 1))
conv_t("deconv_groups2", (1, 4, 4, 3), (4, 3, 3, 3), stride=(2, 2), padding=(1, 1), groups=2)

add("linear", "linear", {}, {"x": shaped(5, 7), "w": shaped(3, 7), "b": shaped(3)}, lambda t: F.linear(t["x"], t["w"], t["b"]))
add("linear_nobias", "linear", {}, {"x": shaped(1, 4), "w": shaped(6, 4)}, lambda t: F.linear(t["x"], t["w"]))
add("matmul", "matmul", {}, {"x": shaped(4, 6), "w": shaped(6, 5)}, lambda t: t["x"] @ t["w"])


# --- batch norm -----------------------------------------------------------------------------------------------------

def bn(name, x, training, eps=1e-5, momentum=0.1, act="none", residual=False, offset=0.0):
    c = x[1]
    inputs = {
        "x": lambda g: normal(g, *x) * 2 + offset,
        "gamma": lambda g: normal(g, c) * 0.5 + 1,
        "beta": shaped(c),
        "running_mean": shaped(c),
        "running_var": lambda g: normal(g, c).abs() + 0.5,
    }
    if residual:
        inputs["residual"] = shaped(*x)
    options = {"training": training, "eps": eps, "momentum": momentum, "act": act}
    after = {}

    def run(t):
        mean, var = t["running_mean"].clone(), t["running_var"].clone()
        y = F.batch_norm(t["x"], mean, var, t["gamma"], t["beta"], training, momentum, eps)
        after.update({"running_mean_after": mean, "running_var_after": var})
        if residual:
            y = y + t["residual"]
        return {"none": lambda v: v, "relu": F.relu, "relu6": F.relu6}[act](y)

    add(name, "batch_norm", options, inputs, run, fixed=("running_mean", "running_var"), extra=lambda t: after)


bn("bn_train", (2, 5, 4, 3), True)
bn("bn_train_large_mean", (2, 3, 5, 5), True, offset=1000.0)
bn("bn_train_eps_momentum", (3, 4, 2, 2), True, eps=1e-3, momentum=0.01)
bn("bn_train_relu", (2, 6, 4, 5), True, act="relu")
bn("bn_train_relu6", (2, 6, 4, 5), True, act="relu6")
bn("bn_train_residual_relu", (2, 6, 3, 5), True, act="relu", residual=True)
bn("bn_train_residual", (2, 3, 3, 2), True, residual=True)
bn("bn_train_2d", (6, 5), True)
bn("bn_eval", (2, 5, 4, 3), False)
bn("bn_eval_relu6", (1, 5, 1, 1), False, act="relu6", eps=1e-3)
bn("bn_eval_residual_relu", (1, 4, 3, 3), False, act="relu", residual=True)
bn("bn_eval_2d", (1, 5), False)


# --- pooling and resizing -------------------------------------------------------------------------------------------

def distinct(*shape):
    """A permutation: no ties, so the gradient of a maximum is unique."""
    def make(g):
        count = torch.Size(shape).numel()
        return (torch.randperm(count, generator=g).double().reshape(shape) - count / 2) / 16
    return make


def max_pool(name, x, kernel, stride, padding=(0, 0), ceil_mode=False):
    options = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    add(name, "max_pool2d", options, {"x": distinct(*x)},
        lambda t: F.max_pool2d(t["x"], kernel, stride, padding, ceil_mode=ceil_mode))


def avg_pool(name, x, kernel, stride, padding=(0, 0), ceil_mode=False, count_include_pad=True):
    options = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode,
               "count_include_pad": count_include_pad}
    add(name, "avg_pool2d", options, {"x": shaped(*x)},
        lambda t: F.avg_pool2d(t["x"], kernel, stride, padding, ceil_mode, count_include_pad))


max_pool("max_3x3_stride2_pad1", (2, 5, 7, 8), (3, 3), (2, 2), (1, 1))
max_pool("max_3x3_stride2_pad1_ceil", (1, 3, 8, 6), (3, 3), (2, 2), (1, 1), ceil_mode=True)
max_pool("max_ceil_last_window_outside", (1, 2, 5, 5), (2, 2), (3, 3), (1, 1), ceil_mode=True)
max_pool("max_2x2", (1, 4, 5, 6), (2, 2), (2, 2))
max_pool("max_asymmetric", (1, 3, 6, 7), (3, 2), (1, 3), (1, 0))
avg_pool("avg_2x2", (2, 3, 4, 6), (2, 2), (2, 2))
avg_pool("avg_3x3_pad_counted", (1, 4, 6, 5), (3, 3), (2, 2), (1, 1))
avg_pool("avg_3x3_pad_not_counted", (1, 4, 6, 5), (3, 3), (2, 2), (1, 1), count_include_pad=False)
avg_pool("avg_ceil_counted", (1, 2, 6, 8), (3, 3), (2, 2), (1, 1), ceil_mode=True)
avg_pool("avg_ceil_not_counted", (1, 2, 6, 8), (3, 3), (2, 2), (1, 1), ceil_mode=True, count_include_pad=False)
for k in (1, 2, 3, 6):
    add(f"adaptive_{k}", "adaptive_avg_pool2d", {"size": (k, k)}, {"x": shaped(2, 3, 7, 10)},
        lambda t, k=k: F.adaptive_avg_pool2d(t["x"], (k, k)))
add("adaptive_larger_than_input", "adaptive_avg_pool2d", {"size": (5, 3)}, {"x": shaped(1, 2, 3, 3)},
    lambda t: F.adaptive_avg_pool2d(t["x"], (5, 3)))
add("global_avg", "global_avg_pool2d", {}, {"x": shaped(2, 11, 3, 5)}, lambda t: F.adaptive_avg_pool2d(t["x"], (1, 1)))

for corners in (False, True):
    for label, x, size in (("up", (2, 3, 4, 5), (9, 11)), ("x4", (1, 2, 3, 3), (12, 12)), ("down", (1, 3, 9, 10), (4, 3)),
                           ("mixed", (1, 2, 7, 3), (3, 8)), ("same", (1, 2, 4, 3), (4, 3)), ("from_pixel", (1, 3, 1, 1), (3, 4)),
                           ("to_pixel", (1, 3, 4, 5), (1, 1))):
        add(f"bilinear_{label}_{'corners' if corners else 'centres'}", "resize_bilinear", {"size": size, "align_corners": corners},
            {"x": shaped(*x)}, lambda t, size=size, corners=corners: F.interpolate(t["x"], size, mode="bilinear", align_corners=corners))
for label, x, size in (("up", (1, 3, 4, 5), (9, 10)), ("down", (2, 2, 9, 7), (4, 3)), ("mixed", (1, 2, 5, 3), (3, 7))):
    add(f"nearest_{label}", "resize_nearest", {"size": size}, {"x": shaped(*x)},
        lambda t, size=size: F.interpolate(t["x"], size, mode="nearest"))


# --- softmax and losses ---------------------------------------------------------------------------------------------

for x in ((2, 11, 3, 4), (5, 7)):
    rank = "map" if len(x) == 4 else "rows"
    add(f"softmax_channel_{rank}", "softmax", {"axis": "channel"}, {"x": shaped(*x, scale=3.0)}, lambda t: F.softmax(t["x"], 1))
    add(f"log_softmax_channel_{rank}", "log_softmax", {"axis": "channel"}, {"x": shaped(*x, scale=3.0)},
        lambda t: F.log_softmax(t["x"], 1))
add("softmax_spatial", "softmax", {"axis": "spatial"}, {"x": shaped(2, 3, 5, 4, scale=3.0)},
    lambda t: F.softmax(t["x"].flatten(2), 2).reshape(t["x"].shape))
add("log_softmax_spatial", "log_softmax", {"axis": "spatial"}, {"x": shaped(2, 3, 5, 4, scale=3.0)},
    lambda t: F.log_softmax(t["x"].flatten(2), 2).reshape(t["x"].shape))
add("log_softmax_extreme", "log_softmax", {"axis": "channel"}, {"x": shaped(1, 4, 2, 2, scale=300.0)}, lambda t: F.log_softmax(t["x"], 1))


def labels_like(shape, classes, ignore, share, dtype):
    def make(g):
        y = torch.randint(0, classes, shape, generator=g)
        if share > 0:
            y[torch.rand(shape, generator=g) < share] = ignore
        return y.to(dtype)
    return make


def ce(name, x, ignore=255, share=0.0, weighted=False, smoothing=0.0, dtype=torch.uint8, scale=1.0):
    k = x[1]
    inputs = {"x": shaped(*x, scale=scale), "labels": labels_like((x[0], *x[2:]), k, ignore, share, dtype)}
    if weighted:
        inputs["class_weights"] = lambda g: normal(g, k).abs() + 0.25
    options = {"ignore_index": ignore, "label_smoothing": smoothing}
    add(name, "cross_entropy", options, inputs,
        lambda t: F.cross_entropy(t["x"], t["labels"].long(), t.get("class_weights"), ignore_index=ignore, label_smoothing=smoothing),
        fixed=("class_weights",))


ce("ce", (2, 11, 4, 5))
ce("ce_ignore", (2, 19, 4, 5), share=0.3)
ce("ce_ignore_3", (1, 5, 4, 4), ignore=3, dtype=torch.int64)
ce("ce_weights", (2, 11, 3, 4), share=0.2, weighted=True)
ce("ce_smoothing", (2, 7, 3, 4), share=0.2, smoothing=0.1)
ce("ce_weights_smoothing", (2, 21, 3, 4), share=0.2, weighted=True, smoothing=0.2, dtype=torch.int32)
ce("ce_rows", (6, 9), dtype=torch.int64)
ce("ce_extreme", (1, 4, 3, 3), scale=100.0)
ce("ce_one_pixel", (1, 11, 1, 1))


def pixel_kd(name, x, reduction, tau, ignored=0.0):
    """The published forms, from softmaxes over the classes of each pixel."""
    n, c, h, w = x
    inputs = {"student": shaped(*x, scale=2.0), "teacher": shaped(*x, scale=2.0)}
    if ignored > 0:
        inputs["labels"] = labels_like((n, h, w), c, 255, ignored, torch.uint8)

    def run(t):
        log_s = F.log_softmax(t["student"] / tau, 1)
        log_t = F.log_softmax(t["teacher"] / tau, 1)
        p = log_t.exp()
        if reduction == "skd_cross_entropy":
            return -(p * log_s).sum() / (h * w)
        per_pixel = (p * (log_t - log_s)).sum(1)
        valid = t["labels"] != 255 if "labels" in t else torch.ones(n, h, w, dtype=torch.bool)
        kl = per_pixel[valid].sum()
        return {"mean_all": kl / (n * c * h * w), "per_pixel": kl * tau * tau / valid.sum(), "batch_mean": kl * tau * tau / n}[reduction]

    add(name, "pixel_kd", {"reduction": reduction, "tau": tau}, inputs, run, fixed=("teacher",))


def channel_kd(name, x, tau, cross_entropy_form=False):
    n, c = x[:2]

    def run(t):
        log_s = F.log_softmax(t["student"].flatten(2) / tau, 2)
        log_t = F.log_softmax(t["teacher"].flatten(2) / tau, 2)
        p = log_t.exp()
        inside = -log_s if cross_entropy_form else log_t - log_s
        return (p * inside).sum() * tau * tau / (n * c)

    add(name, "channel_kd", {"tau": tau, "cross_entropy_form": cross_entropy_form},
        {"student": shaped(*x, scale=2.0), "teacher": shaped(*x, scale=2.0)}, run, fixed=("teacher",))


pixel_kd("pixel_kd_mean_all", (2, 11, 3, 4), "mean_all", 1.0)
pixel_kd("pixel_kd_per_pixel", (2, 7, 4, 3), "per_pixel", 1.0)
pixel_kd("pixel_kd_per_pixel_tau4", (1, 19, 4, 3), "per_pixel", 4.0)
pixel_kd("pixel_kd_batch_mean", (2, 5, 3, 3), "batch_mean", 2.0)
pixel_kd("pixel_kd_ignored", (2, 5, 4, 4), "per_pixel", 2.0, ignored=0.4)
pixel_kd("pixel_kd_skd", (2, 5, 3, 3), "skd_cross_entropy", 1.0)
channel_kd("channel_kd_tau4", (2, 11, 5, 6), 4.0)
channel_kd("channel_kd_tau1", (1, 3, 4, 7), 1.0)
channel_kd("channel_kd_cross_entropy", (2, 4, 3, 5), 2.0, cross_entropy_form=True)

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
save_file(TENSORS, folder / "ops.safetensors", metadata={"made_by": "make_ops.py"})
(folder / "ops.safetensors").chmod(0o644)
lines = ",\n".join(json.dumps(c) for c in CASES)
(folder / "ops.json").write_text(f"[\n{lines}\n]\n")
print(f"{len(CASES)} cases, {(folder / 'ops.safetensors').stat().st_size} bytes")
