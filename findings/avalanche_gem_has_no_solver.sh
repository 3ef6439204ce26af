#!/usr/bin/env bash
# Avalanche's GEM installs without the solver that it calls, and fails only once gradients conflict.
#
# avalanche-lib asks for `qpsolvers[open_source_solvers]`. That extra is gone from qpsolvers 4.13.0: pip installs it
# without, and warns at most. GEM then trains as long as the gradient agrees with those of earlier experiences, and
# raises SolverNotFound in the first step in which it does not, here in the second experience.
#
# Versions: avalanche-lib 0.6.0, qpsolvers 4.13.0 (torch 2.14.1, torchvision 0.29.1), Python 3.11, Linux.
# Output seen:
#   quadprog among the solvers: False; agreeing gradients: trained; conflicting gradients: SolverNotFound
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet avalanche-lib==0.6.0 qpsolvers==4.13.0 torch==2.14.1 torchvision==0.29.1
export HOME="$work"
cat >"$work/gem.py" <<'PY'
import logging
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
import qpsolvers
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import GEM
from torch.utils.data import TensorDataset


def experience(sign):
    images = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    targets = (sign * images.sum(1) > 0).long()
    data = TensorDataset(images, targets)
    data.targets = targets
    return as_classification_dataset(data)


def trained(second):
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 2)
    learner = GEM(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1),
                  criterion=torch.nn.CrossEntropyLoss(), patterns_per_exp=64, train_mb_size=64, train_epochs=2,
                  device="cpu", evaluator=EvaluationPlugin())
    try:
        for item in benchmark_from_datasets(train=[experience(1), experience(second)]).train_stream:
            learner.train(item)
    except Exception as error:
        return type(error).__name__
    return "trained"


print(f"quadprog among the solvers: {'quadprog' in qpsolvers.available_solvers}; "
      f"agreeing gradients: {trained(1)}; conflicting gradients: {trained(-1)}")
PY
output="$("$work/venv/bin/python" -W ignore "$work/gem.py" 2>/dev/null | tail -n 1)"
echo "$output"
[ "$output" = "quadprog among the solvers: False; agreeing gradients: trained; conflicting gradients: SolverNotFound" ]
