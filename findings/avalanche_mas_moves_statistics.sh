#!/usr/bin/env bash
# Avalanche's MASPlugin changes the model after its training is over.
#
# After each experience it measures importances on the training data with the model in training mode. No weight moves,
# but the running statistics of batch normalisation do, by one step for every mini-batch: the model that is left is
# neither the one that was trained last nor the one that was evaluated, and it is left in training mode.
#
# Versions: avalanche-lib 0.6.0 (torch 2.14.1, torchvision 0.29.1), Python 3.11, Linux.
# Output seen:
#   weights moved: False; running statistics moved: True; left in training mode: True
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet avalanche-lib==0.6.0 torch==2.14.1 torchvision==0.29.1
export HOME="$work"
cat >"$work/mas.py" <<'PY'
import logging
logging.disable(logging.CRITICAL)
import torch
from torch.utils.data import TensorDataset
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin, MASPlugin
from avalanche.training.supervised import Naive

images = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
data = TensorDataset(images, (images.sum(1) > 0).long())
data.targets = data.tensors[1]
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
before = {}


class Look(SupervisedPlugin):
    """Stands before the plug-in and keeps the model as training has left it, in evaluation mode."""

    def after_training_exp(self, strategy, **kwargs):
        strategy.model.eval()
        before.update({name: tensor.clone() for name, tensor in strategy.model.state_dict().items()})


learner = Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1),
                criterion=torch.nn.CrossEntropyLoss(), train_mb_size=16, train_epochs=1, device="cpu",
                plugins=[Look(), MASPlugin(lambda_reg=1.0, alpha=0.5, verbose=False)],
                evaluator=EvaluationPlugin())
learner.train(benchmark_from_datasets(train=[as_classification_dataset(data)]).train_stream[0])
moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
statistics = any("running" in name for name in moved)
weights = any(name.endswith(("weight", "bias")) for name in moved)
print(f"weights moved: {weights}; running statistics moved: {statistics}; left in training mode: {model.training}")
PY
output="$("$work/venv/bin/python" -W ignore "$work/mas.py" 2>/dev/null | tail -n 1)"
echo "$output"
[ "$output" = "weights moved: False; running statistics moved: True; left in training mode: True" ]
