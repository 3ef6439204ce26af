"""All that this package uses of Avalanche: the one file that imports it.

Importing it takes seconds, so whatever must answer at once imports it inside the functions that train.
`tests/test_avalanche_parts.py` names what would break with a version of Avalanche that lacks a part.
"""

from __future__ import annotations

from cliqa_bench.system.avalanche_import import importing_avalanche

with importing_avalanche():
    from avalanche.benchmarks import CLScenario, benchmark_from_datasets
    from avalanche.benchmarks.scenarios.task_aware import with_task_labels
    from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute, TransformGroups
    from avalanche.benchmarks.utils.flat_data import ConstantSequence
    from avalanche.benchmarks.utils.utils import concat_datasets
    from avalanche.core import SupervisedPlugin
    from avalanche.evaluation import GenericPluginMetric, Metric, PluginMetric
    from avalanche.evaluation.metric_results import MetricValue
    from avalanche.evaluation.metric_utils import get_metric_name
    from avalanche.evaluation.metrics import loss_metrics
    from avalanche.logging import BaseLogger, TensorboardLogger
    from avalanche.training import plugins
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.templates import SupervisedTemplate

__all__ = [
    "AvalancheDataset",
    "BaseLogger",
    "CLScenario",
    "ConstantSequence",
    "DataAttribute",
    "EvaluationPlugin",
    "GenericPluginMetric",
    "Metric",
    "MetricValue",
    "PluginMetric",
    "SupervisedPlugin",
    "SupervisedTemplate",
    "TensorboardLogger",
    "TransformGroups",
    "benchmark_from_datasets",
    "concat_datasets",
    "get_metric_name",
    "loss_metrics",
    "plugins",
    "with_task_labels",
]
