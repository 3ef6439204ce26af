"""A model folder as model hubs expect it: weights, configuration and a card.

Pushing it is the user's own command.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cliqa_bench._version import __version__
from cliqa_bench.errors import UserError
from cliqa_bench.execution.learned import Learned, ModelFacts
from cliqa_bench.execution.model_file import MODEL, facts_for_others, write_model
from cliqa_bench.results.nodes import write_text

CONFIG = "config.json"
CARD = "README.md"


def write_folder(learned: Learned, to: Path) -> None:
    """Writes `model.safetensors`, `config.json` and `README.md`, the card.

    The model file has all that loading needs; the configuration repeats its facts for hubs and people.

    Args:
        learned: The model.
        to: The folder; if there is one, it must be empty or that of a model.

    Raises:
        UserError: If the extra is missing, or something else is in the folder.
    """
    if find_spec("huggingface_hub") is None:
        raise UserError(
            'a folder with a model card needs huggingface_hub: pip install "cliqa_bench[hub]"; '
            "--to model.safetensors needs nothing more"
        )
    if to.exists() and not to.is_dir():
        raise UserError(
            f"{to} is a file; give --to a folder, or a name that ends in .safetensors, .onnx or .pt2"
        )
    if to.is_dir() and not (to / MODEL).is_file() and any(to.iterdir()):
        raise UserError(f"{to} holds something other than a model; give another folder with --to")
    facts = learned.measured()
    write_text(to / CARD, str(card(facts)))
    write_text(to / CONFIG, json.dumps(facts_for_others(facts), indent=2, sort_keys=True) + "\n")
    write_model(learned, to / MODEL)  # last: what has one is whole


def card(facts: ModelFacts) -> Any:
    """Returns the card, a `huggingface_hub.ModelCard`."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    results = [
        EvalResult(
            task_type="image-quality-assessment",
            dataset_type=test,
            dataset_name=facts.titles.get(test, test) + (" (generated)" if facts.generated else ""),
            metric_type="spearmanr",
            metric_name="SRCC",
            metric_value=round(value, 4),
        )
        for test, value in facts.srcc.items()
    ]
    data = ModelCardData(
        library_name="cliqa_bench",
        tags=["image-quality-assessment", "no-reference", "continual-learning", facts.strategy],
        **({"model_name": facts.id, "eval_results": results} if results else {}),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(facts)}")


def _text(facts: ModelFacts) -> str:
    def title(name: str) -> str:
        return facts.titles.get(name, name)

    rows = [f"| {title(test)} | {value:.3f} |" for test, value in facts.srcc.items()]
    return _TEXT.format(
        id=facts.id,
        strategy=facts.strategy,
        backbone=facts.backbone,
        learned=", ".join(map(title, facts.sequence)),
        readout=_READOUTS[facts.readout].format(tau=facts.tau),
        generated=_GENERATED if facts.generated else "",
        table="\n".join(["| test set | SRCC |", "|---|---|", *rows]) if rows else "No test set was answered.",
        version=__version__,
    )


_READOUTS = {
    "gate": "The heads' scores are weighted by K-means gating (temperature {tau:g}).",
    "last": "The newest head's score is the score.",
    "merged": "A single head, merged from those of the datasets, gives the score.",
}

_GENERATED = """
**Trained or tested on generated miniatures: its numbers are not comparable with published ones.**
"""

_TEXT = """# {id}

A no-reference image quality model: `{strategy}` on the backbone `{backbone}`, which learned {learned}.
{readout} Higher is better.
{generated}
```python
import cliqa_bench

model = cliqa_bench.load("FOLDER")  # this folder, downloaded
print(model.score("photo.jpg").score)
```
or `cliqa-bench score photos/ --model FOLDER`.

## Measured
{table}

On the test images of the split that it was trained with; `config.json` has protocol, versions and
preprocessing.

## Limits
It says how good pictures look to people who rated pictures like those of the datasets above, and nothing
about what they show. Scores of pictures unlike these may mean little.

Written by cliqa_bench {version}. Add a licence before you publish it: that of the code says nothing about
weights that were trained on the data of others.
"""
