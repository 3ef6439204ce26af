#!/usr/bin/env bash
# The same seed gives other random weights on a CPU without AVX2, with the same PyTorch.
#
# Normally distributed numbers come from a vectorised Box-Muller transform where the processor has AVX2, and from the
# C library's logarithm and cosine where it has not: they differ in their last bits. "Random weights, seed 7" is
# therefore no exact reference: compare weights that are stored, or allow 1e-7 a weight.
#
# Versions: torch 2.14.1, torchvision 0.29.1, Python 3.11, Linux on x86-64 with AVX2.
# Output seen:
#   equal: False, largest difference below 1e-6: True
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision==0.29.1
cat >"$work/weights.py" <<'PY'
import sys

import torch
import torchvision

torch.manual_seed(7)
torch.save(torchvision.models.resnet18(weights=None).conv1.weight.detach(), sys.argv[1])
PY
"$work/venv/bin/python" "$work/weights.py" "$work/usual.pt"
ATEN_CPU_CAPABILITY=default "$work/venv/bin/python" "$work/weights.py" "$work/without_avx2.pt"
output="$("$work/venv/bin/python" - "$work/usual.pt" "$work/without_avx2.pt" <<'PY'
import sys

import torch

a, b = (torch.load(path) for path in sys.argv[1:])
print(f"equal: {torch.equal(a, b)}, largest difference below 1e-6: {bool((a - b).abs().max() < 1e-6)}")
PY
)"
echo "$output"
[ "$output" = "equal: False, largest difference below 1e-6: True" ]
