#!/usr/bin/env bash
# With Avalanche's RWalkPlugin, a network is trained in evaluation mode.
#
# Before every step the plug-in takes a gradient, for which it puts the model into evaluation mode, and leaves it there.
# From the first step on, dropout drops nothing, and batch normalisation takes its running statistics, which stay what
# they were at the start: mean 0 and variance 1. Even with a strength of 0 this is another training than Naive's.
#
# Versions: avalanche-lib 0.6.0 (torch 2.14.1, torchvision 0.29.1), Python 3.11, Linux.
# Output seen:
#   Naive: 12 of 12 steps in training mode, running mean moved: True
#   RWalk with strength 0: 0 of 12 steps in training mode, running mean moved: False
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet avalanche-lib==0.6.0 torch==2.14.1 torchvision==0.29.1
export HOME="$work"
cat >"$work/rwalk.py" <<'PY'
import logging
logging.disable(logging.CRITICAL)
import torch
from torch.utils.data import TensorDataset
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin, RWalkPlugin
from avalanche.training.supervised import Naive


class Modes(SupervisedPlugin):
    """Notes the mode of the model in every step."""

    def __init__(self):
        super().__init__()
        self.training = []

    def before_forward(self, strategy, **kwargs):
        self.training.append(strategy.model.training)


def train(name, plugins):
    images = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, (images.sum(1) > 0).long())
    data.targets = data.tensors[1]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    modes = Modes()
    learner = Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1),
                    criterion=torch.nn.CrossEntropyLoss(), train_mb_size=16, train_epochs=3, device="cpu",
                    plugins=[*plugins, modes], evaluator=EvaluationPlugin())
    learner.train(benchmark_from_datasets(train=[as_classification_dataset(data)]).train_stream[0], eval_streams=[])
    moved = bool(model[1].running_mean.any())
    print(f"{name}: {sum(modes.training)} of {len(modes.training)} steps in training mode, running mean moved: {moved}")


train("Naive", [])
train("RWalk with strength 0", [RWalkPlugin(ewc_lambda=0.0)])
PY
output="$("$work/venv/bin/python" -W ignore "$work/rwalk.py" 2>/dev/null | tail -n 2)"
echo "$output"
[ "$output" = "Naive: 12 of 12 steps in training mode, running mean moved: True
RWalk with strength 0: 0 of 12 steps in training mode, running mean moved: False" ]
