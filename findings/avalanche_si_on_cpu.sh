#!/usr/bin/env bash
# On a CPU, Avalanche's SynapticIntelligencePlugin protects nothing.
#
# It keeps the weights from before a step and from after it, to multiply their difference with the gradient. On a GPU
# `param.detach().cpu()` copies them; on a CPU it is a view, and both are the weights of this moment. The difference
# is always 0, so are all importances, and training with any strength ends in the bits of training without it.
#
# Versions: avalanche-lib 0.6.0 (torch 2.14.1, torchvision 0.29.1), Python 3.11, Linux.
# Output seen:
#   importances: 0.0; weights are those without the plug-in: True
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet avalanche-lib==0.6.0 torch==2.14.1 torchvision==0.29.1
export HOME="$work"
cat >"$work/si.py" <<'PY'
import warnings
warnings.filterwarnings("ignore")
import logging
logging.disable(logging.CRITICAL)
import torch
from torch.utils.data import TensorDataset
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset, DataAttribute
from avalanche.training.plugins import SynapticIntelligencePlugin
from avalanche.training.supervised import Naive
from avalanche.training.plugins import EvaluationPlugin


def experience(shift):
    images = torch.randn(64, 8, generator=torch.Generator().manual_seed(shift)) + shift
    targets = (images.sum(1) > 8 * shift).long()
    data = TensorDataset(images, targets)
    data.targets = targets
    return as_classification_dataset(data)


def trained(plugins):
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 2)
    learner = Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1),
                    criterion=torch.nn.CrossEntropyLoss(), train_mb_size=16, train_epochs=3,
                    device="cpu", plugins=plugins, evaluator=EvaluationPlugin())
    stream = benchmark_from_datasets(train=[experience(0), experience(1)]).train_stream
    for item in stream:
        torch.manual_seed(1)
        learner.train(item)
    return model.weight.detach().clone()


plain = trained([])
si = SynapticIntelligencePlugin(si_lambda=1e6)
with_si = trained([si])
importance = sum(float(p.data.abs().sum()) for p in si.ewc_data[1].values())
print(f"importances: {importance}; weights are those without the plug-in: {torch.equal(plain, with_si)}")
PY
output="$("$work/venv/bin/python" -W ignore "$work/si.py" 2>/dev/null | tail -n 1)"
echo "$output"
[ "$output" = "importances: 0.0; weights are those without the plug-in: True" ]
