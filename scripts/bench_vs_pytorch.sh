#!/usr/bin/env bash
# The main benchmark: one distillation step (frozen DeepLabV3-ResNet-50 teacher, MobileNetV2 student, batch 4 of
# 3x256x256) in limbeck and in PyTorch, interleaved on the same machine. Prints the median ratio per element type.
#
# Needs: a built `limbeck` and a Python with torch and torchvision, named by LIMBECK_PYTHON (default: python3).
#
#   scripts/bench_vs_pytorch.sh                        explore PyTorch's modes, then duel with the best ones per type
#   scripts/bench_vs_pytorch.sh --explore-only         PyTorch alone
#   scripts/bench_vs_pytorch.sh --dtype bf16 --mode channels_last,bf16,eager,folded --rounds 9
#
# Options (all optional): --dtype f32|bf16, --rounds 5, --steps 3 (timed steps per turn), --warmup 3, --passes 2,
#   --mode LAYOUT,DTYPE,STUDENT,TEACHER (repeatable; skips the exploration), --explore-only.
#   LIMBECK=path/of/limbeck (default build/apps/limbeck), OMP_NUM_THREADS is honoured by both sides.
# Both run with OMP_WAIT_POLICY=passive and with the default policy (threads that wait busily), pair by pair. The fastest of
# PyTorch's contenders counts as the rival.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${LIMBECK_PYTHON:-python3}"
limbeck="${LIMBECK:-$root/build/apps/limbeck}"

if ! "$python" -c 'import torch, torchvision' 2>/dev/null; then
  echo "bench_vs_pytorch: '$python' has no torch and torchvision; set LIMBECK_PYTHON to one that has" >&2
  exit 2
fi
if [[ ! -x "$limbeck" && " $* " != *" --explore-only "* ]]; then
  echo "bench_vs_pytorch: $limbeck not found; build it, set LIMBECK, or pass --explore-only" >&2
  exit 2
fi
exec "$python" "$root/tests/bench/compare_with_pytorch.py" --limbeck "$limbeck" "$@"
