#!/usr/bin/env bash
# scripts/gpu_check.sh without a GPU and without PyTorch, with stand-ins for its programs: checks that fail, that run into the time
# limit, that find no time left; figures and goals from what was printed until then.
source "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
check() { LIMBECK_PYTHON=/nonexistent/python "$root/scripts/gpu_check.sh" --binaries "$work/programs" --out "$work/out" "$@"; }

mkdir "$work/programs"
program() { # NAME: its script is on standard input
  { echo '#!/bin/sh'; cat; } > "$work/programs/$1"
  chmod +x "$work/programs/$1"
}
program limbeck <<'SH'
case " $* " in *" --cuda-graph "*) first=1.5 ms=40 ;; *) first=2.25 ms=50.5 ;; esac
echo "a warning"
echo '{"device":"cuda:0","ms":['$ms'],"median_ms":'$ms',"first_step_seconds":'$first',"peak_rss_mb":9,"peak_tensor_mb":8192.4,"gflop":1e3,"gigabytes":7.5,"matmul_gflops":8e5,"copy_gigabytes_per_second":3000,"floor_ms":20}'
SH
program limbeck_cuda_tests <<< 'echo "[doctest] test cases: 9 | 9 passed"'
program bench_losses <<< 'exit 0'
program bench_cuda <<'SH'
row() { echo '{"family":"'$1'","name":"'"$2"'","ms":0.5,"bytes":1000,"gb_per_s":'$3',"share_of_copy":'$4'}'; }
echo '{"copy_gb_per_s":3000,"cudamemcpy_gb_per_s":3000,"own_copy_gb_per_s":2900}'
case $1 in
  batch_norm) row batch_norm "forward bf16" 2700 0.9; row batch_norm "backward bf16" 2430 0.81 ;;
  depthwise) row depthwise "5x5 forward bf16" 2700 0.9; echo '{"family":"depthwise","name":"3x3","error":"a fault"}'; exit 1 ;;
  losses) row losses "pixel_kd bf16" 1500 0.5; exec sleep 60 ;;
esac
SH
export GPU_PARTS="facts tests step losses kernels verbs"
expect 1 "1 failed" check --seconds 12
table=$work/out/table.txt
says() { # TEXT...: the table has a line with all of them
  local line=$1 text
  shift
  checks=$((checks + 1))
  line=$(grep -F -- "$line" "$table" || true)
  for text in "$@"; do line=$(grep -F -- "$text" <<< "$line" || true); done
  [ -n "$line" ] || { failures=$((failures + 1)); echo "FAILED: the table has no line with: $*"; cat "$table"; }
}
says "step bf16, replayed" "40.00 ms" "20.00 ms" "8192 MiB" "after 1.5 s"
says "step bf16 beside PyTorch" "not run: no PyTorch with CUDA"
says "kernels: batch_norm" passed
says "kernels: depthwise" "FAILED with status 1"
says "kernels: losses" "stopped by its limit"
says "kernels: optimizer" "not run: no time left"
says "batch_norm: backward bf16" "0.500 ms" "2430 GB/s" "0.81 of copy"
says "depthwise: 3x3" "a fault"
says "tests of the GPU code pass" passed yes
says "memory checker finds nothing" "not measured"
says "first step after the start" "2.25" yes
says "step bf16 against PyTorch eager" ">= 1.5" "not measured" "no PyTorch"
says "channel_kd bf16 against torch.compile" "not measured" "no PyTorch"
says "batch_norm kernels" ">= 0.8" "0.81" yes "2 kernels, worst: backward bf16"
says "depthwise kernels" "not measured" "FAILED"       # what failed might be slower than what ran
says "losses kernels" "0.50" NO "stopped by its limit"  # one below is enough
says "optimizer kernels" "not measured" "no time left"
expect 0 '{"goal":"batch_norm kernels, share of copy bandwidth","wanted":">= 0.8","measured":0.81,"reached":"yes"' \
  cat "$work/out/goals.jsonl"

# What PyTorch's scripts print, and what becomes of it.
goals() { awk -f "$root/scripts/gpu/value.awk" -f "$root/scripts/gpu/goals.awk" "$@"; }
cat > "$work/results" <<'JSON'
{"check":"step bf16 beside PyTorch eager,eager","result":"stopped by its limit","seconds":90}
{"what": "step", "dtype": "bf16", "mode": "channels_last,bf16,eager,eager", "policy": "passive", "rounds": 1, "ratio": 1.4, "least": 1.4, "most": 1.4, "limbeck_mb": 8000.5, "pytorch_mb": 9000.0}
{"what": "step", "dtype": "bf16", "mode": "channels_last,bf16,eager,eager", "policy": "passive", "rounds": 2, "ratio": 1.625, "least": 1.4, "most": 1.85, "limbeck_mb": 8000.5, "pytorch_mb": 9000.0}
{"what": "step", "dtype": "bf16", "mode": "channels_last,bf16,eager,folded", "policy": "passive", "rounds": 2, "ratio": 0.9, "least": 0.9, "most": 0.9, "limbeck_mb": 1, "pytorch_mb": 2}
{"name": "icsd_16x19x512x512_bf16", "loss": "icsd", "shape": "16x19x512x512", "dtype": "bf16", "limbeck_ms": 1, "errors": {}, "over_eager": 2.5, "over_compile": 1.2}
{"name": "icsd_4x19x8x8_bf16", "loss": "icsd", "shape": "4x19x8x8", "dtype": "bf16", "limbeck_ms": 1, "errors": {}, "over_eager": 9, "over_compile": 9}
JSON
goals "$work/results" > "$work/goals"
table=$work/goals
says "step bf16 against PyTorch eager" "1.62" yes "1.4 to 1.85 in 2 rounds"
says "peak memory of the step, of PyTorch eager" "0.89" yes "8000 of 9000 MiB"
says "step bf16 against PyTorch compile" "not measured"
says "icsd bf16 against eager" "2.50" NO "16x19x512x512"
says "icsd bf16 against torch.compile" "1.20" yes
echo '{"rehearsal":"small"}' >> "$work/results"
goals "$work/results" > "$work/goals"
says "icsd bf16 against torch.compile" rehearsal

# No GPU: nothing has been checked, whatever else there is.
program limbeck_cuda_tests <<< 'echo "tests: MESSAGE: skipped: no GPU (no CUDA-capable device is detected)"'
expect 1 "nothing has been checked" check
table=$work/out/table.txt
says tests "skipped: no GPU"
rm "$work/programs/bench_cuda"
expect 2 "bench_cuda is not there" check
expect 2 "unknown argument" check --nonsense
finish
