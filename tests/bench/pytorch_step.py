"""The rival of the main benchmark: one distillation step in PyTorch, on the CPU or on a GPU.

What it measures (the same work as `limbeck bench step`):
  teacher  DeepLabV3-ResNet-50, output stride 16, ASPP rates 6/12/18, no auxiliary head, eval, frozen
  student  MobileNetV2 features.0-17, output stride 16 (last stage dilated), then a 1x1 convolution to 11 classes, train
  loss     cross entropy of the logits resized bilinearly (align_corners=False) to 256x256, ignore 255
           + 3 * channel-wise distillation (tau 4) of the logits at their native stride
  update   SGD, learning rate 0.01, momentum 0.9, weight decay 5e-4; batch 4 of 3x256x256, random data, random weights
  --device, --batch, --size and --classes make it another device, batch, size (of square pictures) and number of classes

What it is not: a training script, or a check of results (tests/golden does that).

Usage:
  pytorch_step.py --mode channels_last,bf16,eager,folded --warmup 3 --steps 9    one JSON line with the step times
  pytorch_step.py --mode ... --serve       after warm-up prints {"ready":..}; then for each line "N" on stdin runs N steps
                                           and prints one JSON line; ends at end of file
  pytorch_step.py --mode ... --warm        compiles, which fills PyTorch's caches on disk, and times nothing
  pytorch_step.py --list                   the modes that scripts/bench_vs_pytorch.sh tries

A mode is LAYOUT,DTYPE,STUDENT,TEACHER:
  LAYOUT   nchw | channels_last
  DTYPE    f32 | bf16           bf16 is torch.autocast; a folded or compiled bf16 teacher is converted once instead
  STUDENT  eager | compile | graphs
           compile: torch.compile of the student's forward, backward and losses; graphs: the same with
           mode="reduce-overhead", which replays CUDA graphs on a GPU
  TEACHER  eager | folded | mkldnn | compile
           folded: batch norm folded into the convolutions (torch.fx); compile: folded, then torch.compile with frozen
           (prepacked) weights; mkldnn: folded, in oneDNN's blocked tensors (torch.fx optimize_for_inference), f32 only
"""

import argparse
import json
import resource
import sys
import time

BEGIN = time.perf_counter()  # importing PyTorch is part of what its user waits for

import torch  # noqa: E402
import torch.nn.functional as F
from torch import nn
from torchvision.models import mobilenet_v2, resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

MODES = [
    "nchw,f32,eager,eager",
    "channels_last,f32,eager,eager",
    "channels_last,f32,eager,folded",
    "channels_last,f32,eager,compile",
    "channels_last,f32,eager,mkldnn",
    "channels_last,f32,compile,compile",
    "nchw,bf16,eager,eager",
    "channels_last,bf16,eager,eager",
    "channels_last,bf16,eager,folded",
    "channels_last,bf16,eager,compile",
    "channels_last,bf16,compile,compile",
]
GPU_MODES = [  # the student and the teacher in PyTorch's usual ways; folded and frozen teachers are the better rivals
    "channels_last,bf16,eager,eager",
    "channels_last,bf16,eager,folded",
    "channels_last,bf16,compile,compile",
    "channels_last,bf16,graphs,compile",
]


class Teacher(nn.Module):
    def __init__(self, classes):
        super().__init__()
        backbone = resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
        self.backbone = IntermediateLayerGetter(backbone, {"layer4": "out"})
        self.classifier = DeepLabHead(2048, classes, atrous_rates=(6, 12, 18))

    def forward(self, x):
        return self.classifier(self.backbone(x)["out"])


class Student(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = mobilenet_v2(weights=None).features[:18]
        # Output stride 16: the stride of block 14 goes, the depthwise convolutions after it are dilated.
        for k in range(14, 18):
            depthwise = self.features[k].conv[1][0]
            depthwise.stride = (1, 1)
            if k > 14:
                depthwise.dilation = (2, 2)
                depthwise.padding = (2, 2)
        self.head = nn.Conv2d(320, classes, 1)

    def forward(self, x):
        return self.head(self.features(x))


def channel_kd(student, teacher, tau=4.0):
    n, c = student.shape[:2]
    log_s = F.log_softmax(student.float().flatten(2) / tau, dim=2)
    log_t = F.log_softmax(teacher.float().flatten(2) / tau, dim=2)
    return F.kl_div(log_s, log_t, reduction="sum", log_target=True) * (tau * tau / (n * c))


class Step:
    def __init__(self, mode, device="cpu", batch=4, size=256, classes=11, with_teacher=True):
        layout, dtype, student_exec, teacher_exec = mode.split(",")
        self.device, self.size, self.with_teacher = device, size, with_teacher
        self.low = dtype == "bf16"
        memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        torch.manual_seed(1)
        self.teacher = Teacher(classes).eval().requires_grad_(False)
        self.student = Student(classes).train()
        if teacher_exec in ("folded", "compile"):
            from torch.fx.experimental.optimization import fuse

            self.teacher = fuse(self.teacher)
        if teacher_exec == "mkldnn":
            from torch.fx.experimental.optimization import optimize_for_inference

            self.teacher = optimize_for_inference(self.teacher, {"mkldnn_layout_optimize": {"heuristic": lambda graph: True}})
        # Autocast would convert the frozen weights anew in every step; converting them once is the better rival.
        self.teacher_low = self.low and teacher_exec != "eager"
        if self.teacher_low:
            self.teacher = self.teacher.to(torch.bfloat16)
        if teacher_exec != "mkldnn":
            self.teacher = self.teacher.to(device=device, memory_format=memory_format)
        self.student = self.student.to(device=device, memory_format=memory_format)
        if teacher_exec == "compile":
            import torch._inductor.config as inductor

            inductor.freezing = True  # applies to code without gradients only: the teacher
            self.teacher = torch.compile(self.teacher)
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        images = torch.randn(batch, 3, size, size)
        labels = torch.randint(0, classes, (batch, size, size))
        labels[torch.rand(labels.shape) < 0.05] = 255
        self.images = images.contiguous(memory_format=memory_format).to(device)
        self.labels = labels.to(device)
        self.student_loss = self._student_loss
        if student_exec == "compile":
            self.student_loss = torch.compile(self._student_loss)
        if student_exec == "graphs":
            self.student_loss = torch.compile(self._student_loss, mode="reduce-overhead")

    def _student_loss(self, images, labels, target):
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.low):
            logits = self.student(images)
        logits = logits.float()
        up = F.interpolate(logits, size=(self.size, self.size), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(up, labels, ignore_index=255)
        return loss if target is None else loss + 3.0 * channel_kd(logits, target)

    def teacher_logits(self):
        with torch.no_grad():
            if self.teacher_low:
                return self.teacher(self.images.to(torch.bfloat16)).float()
            with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.low):
                return self.teacher(self.images).float()

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)  # first: less memory in the forward pass
        target = self.teacher_logits() if self.with_teacher else None
        loss = self.student_loss(self.images, self.labels, target)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def peak_mb(device):
    """On a GPU the most that tensors needed at once, on the CPU the most that the process needed."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1048576.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def timed(step, count):
    times, teacher_times = [], []
    for _ in range(count):
        begin = time.perf_counter()
        loss = step()
        times.append((time.perf_counter() - begin) * 1e3)
    peak = peak_mb(step.device)
    if count and step.with_teacher:  # where the time goes; not part of the steps above
        begin = time.perf_counter()
        step.teacher_logits()
        if step.device == "cuda":
            torch.cuda.synchronize()
        teacher_times.append((time.perf_counter() - begin) * 1e3)
    return {
        "ms": [round(t, 2) for t in times],
        "teacher_ms": [round(t, 2) for t in teacher_times],
        "loss": loss if count else None,
        "peak_mb": round(peak, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="channels_last,bf16,eager,folded")
    parser.add_argument("--warmup", type=int, default=3, help="1 at least")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--what", choices=("step", "student"), default="step", help="student: without the teacher")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's default")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        print("\n".join(GPU_MODES if args.device == "cuda" else MODES))
        return
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    if args.device == "cuda":
        torch.backends.cudnn.benchmark = True  # algorithms by timing, as limbeck's
    if args.warm:  # which kernel of several is the fastest is left to the process that is timed
        import torch._inductor.config as inductor

        inductor.autotune_local_cache = False
    step = Step(args.mode, args.device, args.batch, args.size, args.classes, args.what == "step")
    step()
    first = time.perf_counter() - BEGIN
    if args.warm:
        print(json.dumps({"mode": args.mode, "first_step_seconds": round(first, 2)}), flush=True)
        return
    for _ in range(args.warmup - 1):
        step()
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # not of choosing algorithms
    head = {"mode": args.mode, "torch": torch.__version__, "threads": torch.get_num_threads(),
            "first_step_seconds": round(first, 2)}
    if not args.serve:
        print(json.dumps({**head, **timed(step, args.steps)}), flush=True)
        return
    print(json.dumps({**head, "ready": True, "ready_seconds": round(time.perf_counter() - BEGIN, 2)}), flush=True)
    for line in sys.stdin:
        print(json.dumps({**head, **timed(step, int(line))}), flush=True)


if __name__ == "__main__":
    main()
