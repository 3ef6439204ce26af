#!/usr/bin/env bash
# safetensors.torch.load gives the tensors of one and the same bytes in another order in every process.
#
# `load_file` and the keys of `safe_open` are sorted by name. `load`, which reads bytes, gives a dictionary in the order of
# a hash table that is seeded anew in each process. Whoever adds up over the tensors (a penalty over all weights, a norm of
# all gradients) gets other last bits from run to run, with one thread and the same seed.
#
# Versions: safetensors 0.8.0, torch 2.14.1, Python 3.11, Linux.
# Output seen:
#   six processes: load gave 6 orders, load_file 1 (sorted); the sum over all tensors had 4 values, sorted by name 1
#   (how many values the sum has differs from run to run; the check asks for more than one)
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet safetensors==0.8.0 torch==2.14.1 numpy
export HOME="$work"
cat >"$work/write.py" <<'PY'
import sys

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
save_file({f"layer{n:02}": torch.rand(1) * 10 ** (n % 5) for n in range(60)}, sys.argv[1])
PY
cat >"$work/read.py" <<'PY'
import pathlib
import sys

from safetensors.torch import load, load_file


def total(tensors):
    found = 0
    for tensor in tensors:
        found = found + tensor
    return found.item().hex()


of_bytes, of_file = load(pathlib.Path(sys.argv[1]).read_bytes()), load_file(sys.argv[1])
ordered = [of_bytes[name] for name in sorted(of_bytes)]
print(",".join(of_bytes), ",".join(of_file), total(of_bytes.values()), total(ordered), list(of_file) == sorted(of_file))
PY
"$work/venv/bin/python" "$work/write.py" "$work/weights.safetensors"
for _ in 1 2 3 4 5 6; do
    "$work/venv/bin/python" "$work/read.py" "$work/weights.safetensors" >>"$work/seen"
done
count() { cut -d' ' -f"$1" "$work/seen" | sort -u | wc -l; }
echo "six processes: load gave $(count 1) orders, load_file $(count 2) (sorted); the sum over all tensors had $(count 3)" \
    "values, sorted by name $(count 4)"
[ "$(count 1)" -gt 1 ] && [ "$(count 2)" -eq 1 ] && [ "$(count 3)" -gt 1 ] && [ "$(count 4)" -eq 1 ]
[ "$(cut -d' ' -f5 "$work/seen" | sort -u)" = "True" ]
