#!/usr/bin/env bash
# torch.export exports a program that rounds a dynamic size up by math.ceil, runs it, and cannot save it.
#
# `math.ceil(size / 16)` of a dynamic size is a node of the graph, and the exported program gives right shapes for other
# sizes. `torch.export.save` has no way to write that node: SerializeError. Vision transformers of timm that take any
# size (dynamic_img_pad) round so. `-(-size // 16)`, integers alone, can be saved; so can the same program as ONNX.
#
# Versions: torch 2.14.1, Python 3.11, Linux.
# Output seen:
#   exported, gives (4,); ceil: SerializeError; integers: saved
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy
export HOME="$work"
cat >"$work/save.py" <<'PY'
import io
import math

import torch


class Ceil(torch.nn.Module):
    def forward(self, x):
        return x.sum() * torch.ones(math.ceil(x.shape[0] / 16))


class Integers(torch.nn.Module):
    def forward(self, x):
        return x.sum() * torch.ones(-(-x.shape[0] // 16))


def exported(network):
    rows = torch.export.Dim("rows", min=32)
    return torch.export.export(network, (torch.ones(40, 3),), dynamic_shapes={"x": {0: rows}})


def saved(program):
    try:
        torch.export.save(program, io.BytesIO())
    except Exception as error:
        return type(error).__name__
    return "saved"


ceil, integers = exported(Ceil()), exported(Integers())
shape = tuple(ceil.module()(torch.ones(50, 3)).shape)
print(f"exported, gives {shape}; ceil: {saved(ceil)}; integers: {saved(integers)}")
PY
output="$("$work/venv/bin/python" -W ignore "$work/save.py" 2>/dev/null | tail -n 1)"
echo "$output"
[ "$output" = "exported, gives (4,); ceil: SerializeError; integers: saved" ]
