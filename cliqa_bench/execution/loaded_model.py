"""A model in your own program: `cliqa_bench.load`, and its scores of pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.aspects import WORDS
from cliqa_bench.errors import UserError
from cliqa_bench.execution.box_model import open_box
from cliqa_bench.execution.given_picture import given_pictures
from cliqa_bench.execution.learned import Learned, LearnedRun
from cliqa_bench.execution.model_file import LearnedFile, model_path
from cliqa_bench.execution.score_files import WINDOW, choose_run
from cliqa_bench.execution.score_pictures import Judged, Scoring, judged_numbers, reading_of
from cliqa_bench.execution.score_table import Lines
from cliqa_bench.models.gated import GatedScorer, Scored
from cliqa_bench.paths import user_path
from cliqa_bench.settings.resolve import chosen_precision, device_name, megapixels
from cliqa_bench.system.compute import resolve_device
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.memory import tune_malloc

if TYPE_CHECKING:
    import pandas as pd

    from cliqa_bench.execution.given_picture import Picture
    from cliqa_bench.types import Floats


def open_learned(path: Path, run: str | None = None) -> Learned:
    """Opens a model, wherever it is.

    Args:
        path: A folder of results, a model file, or a folder with one.
        run: Of a folder of results: which run, see `choose_run`.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    file = model_path(path)
    if not path.exists():
        raise UserError(
            f"no file or folder {path}; give a folder of results, a model file, or a folder that holds one"
        )
    if file.is_dir():
        return LearnedRun(path, choose_run(path, run))
    if run is not None:
        raise UserError(f"{file} holds one model, and no run {run}; leave the run out")
    return LearnedFile(file)


def load(
    source: str | os.PathLike[str] | None = None,
    *,
    run: str | None = None,
    device: str | None = None,
    precision: str = "fp32",
    tolerance: float = 0.0,
    aspects: bool = False,
    max_megapixels: float | None = None,
) -> LoadedModel:
    """Loads a model to score pictures with.

    Args:
        source: A folder of results ("runs"), a model file that `cliqa-bench export` wrote
            ("model.safetensors"), or a folder of a model; None for the model that the package ships.
        run: Of a folder of results: the id of a run, or the beginning of one; None for the newest.
        device: "cpu", "cuda", "cuda:1" or "mps"; None or "auto" for the best there is.
        precision: "fp32", "bf16" or "auto".
        tolerance: How far a score may be off to run fewer heads, at least 0 and below 1.
        aspects: Whether it is to say quality, scene and distortion, too; runs of `liqe` and `liqe_cl` can.
        max_megapixels: Largest picture that is read, in 10^6 pixels; None for 64.

    Raises:
        UserError: If there is no such model, or it cannot be read here.

    Example:
        >>> import cliqa_bench
        >>> model = cliqa_bench.load()
        >>> -1 <= model.score("photo.jpg").score <= 1
        True
        >>> model.score(["photo.jpg", "blurred.jpg"]).frame().sort_values("score")["image"].tolist()
        ['blurred.jpg', 'photo.jpg']
    """
    if source is None and run is not None:
        raise UserError(f"the model in the box holds no run {run}; give load() a folder of results")
    if not 0 <= tolerance < 1:
        raise UserError(f"tolerance must be at least 0 and below 1, not {tolerance}")
    limit, name = megapixels(max_megapixels), device_name(device)
    kind = chosen_precision(precision, name)
    learned = open_box() if source is None else open_learned(user_path(source), run)
    where = resolve_device(name)
    scorer, scale = learned.scorer(where, tolerance, aspects), learned.reading_scale()
    scoring = Scoring(scorer, learned.facts.protocol.resize, where, kind, limit, scale)
    return LoadedModel(learned, scorer, scoring)


@dataclass(frozen=True, eq=False)
class PictureScores:
    """A model's predictions for n pictures.

    Attributes:
        images: Path of each, or its place among those that were given: "[3]".
        scores: (n,) float64, higher is better; in [-1, 1] for the usual heads.
        tasks: A name for each head: the dataset that it learned.
        heads: (n, tasks) float32, what each head says; nan where it was left out, see `tolerance`.
        weights: (n, tasks) float64, of the heads in the score; rows sum to 1.
        distances: (n, tasks, stages) float64, from each picture to the nearest centroid of each task, per
            stage that the gate uses; None for a model without a gate.
        aspects: Aspect ("scene") -> its words and their probabilities (n, words); {} unless asked for.
        percentiles: (n,) float64, 0 to 100: the share of the scale's population that a score is above; None
            for a model without a scale.
        words: (n,) "bad", "poor", "fair", "good" or "excellent", the fifth of the population; "" without a
            score; None for a model without a scale.
        novelty: (n,) float64, above 1 where a picture is unlike all that the model learned; None for a model
            without a gate or a scale.
        errors: Why a picture has no score, which then is nan; "" where it has one.
        notes: What should be known about a picture anyway.
    """

    images: list[str]
    scores: Floats
    tasks: list[str]
    heads: NDArray[np.float32]
    weights: Floats
    distances: Floats | None
    aspects: dict[str, tuple[tuple[str, ...], NDArray[np.float32]]]
    percentiles: Floats | None
    words: list[str] | None
    novelty: Floats | None
    errors: list[str]
    notes: list[list[str]]
    _rows: list[list[Any]]
    _columns: list[str]

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.images)

    @property
    def score(self) -> float:
        """The score of the only picture.

        Raises:
            UserError: If there are several, or none.
        """
        if len(self) != 1:
            raise UserError(f"there are {len(self)} pictures, not one; use .scores")
        return float(self.scores[0])

    def frame(self) -> pd.DataFrame:
        """Returns the table that `cliqa-bench score` writes: a row for each picture, the same columns."""
        import pandas as pd

        frame = pd.DataFrame(self._rows, columns=self._columns)
        words = {"image", "error", "word", *self.aspects}
        return frame.astype({name: np.float64 for name in self._columns if name not in words})


class LoadedModel:
    """A model to score pictures with; `load` makes one.

    Args:
        learned: The model.
        scorer: Its networks.
        scoring: Gives pictures to them.

    Attributes:
        facts: What is known of it beside its weights: protocol, datasets, backbone, versions.
        tasks: A name for each head.
        scale: On which its scores are read: population, words, limits of novelty; None for none.
    """

    def __init__(self, learned: Learned, scorer: GatedScorer, scoring: Scoring) -> None:
        self.facts, self.tasks = learned.facts, learned.facts.tasks
        self._name, self._scorer, self._scoring = learned.name, scorer, scoring
        self.scale = scoring.scale

    def __repr__(self) -> str:
        return (
            f"<{self._name}: {self.facts.strategy}, {self.facts.backbone}, {', '.join(self.facts.sequence)}>"
        )

    def score(
        self, pictures: Picture | Sequence[Picture], *, errors: Literal["raise", "keep"] = "raise"
    ) -> PictureScores:
        """Scores pictures of any sizes, each as `cliqa-bench score` does.

        The same files in the same order give the same bits as there.

        Args:
            pictures: A path, a picture of Pillow's, an array (H, W, 3), a tensor (3, H, W), several of one
                size in an array (N, H, W, 3) or a tensor (N, 3, H, W), or a list of these; a folder stands
                for the pictures in it. uint8, or floating-point numbers from 0 to 1; see
                `execution.given_picture`.
            errors: "raise" stops at a picture that cannot be read or scored; "keep" gives it the score nan
                and says why in `PictureScores.errors`.

        Raises:
            UserError: If something is not a picture, or one cannot be read or scored.
        """
        if errors not in ("raise", "keep"):
            raise UserError(f"errors must be 'raise' or 'keep', not {errors!r}")
        given = given_pictures(pictures)
        tune_malloc()
        found: list[Judged] = []
        with ThreadPoolExecutor(min(8, cores())) as pool:
            for start in range(0, len(given), WINDOW):
                found += self._scoring.judged(given[start : start + WINDOW], pool)
                if errors == "raise" and (failed := next((one for one in found if one.error), None)):
                    raise UserError(f'{failed.error} (errors="keep" scores the others)')
        names = [str(one) if isinstance(one, Path) else one.name for one in given]
        return self._gathered(names, found)

    def _gathered(self, names: list[str], found: list[Judged]) -> PictureScores:
        tasks = self._scorer.tasks
        shown = [] if self.scale is None else self.scale.columns
        heads = self.tasks if tasks > 1 else []
        columns = Lines(".csv", heads, aspects=self._scorer.aspects, reading=shown).columns
        empty = [math.nan] * (len(columns) - 2 - len(shown))
        read = [reading_of(self.scale, one.scored) for one in found]
        rows = [
            [name, *(judged_numbers(one.scored) if one.scored else empty), one.error, *last[: len(shown)]]
            for name, one, last in zip(names, found, read, strict=True)
        ]
        said = [one.scored for one in found]
        gate = self._scorer.gate if tasks > 1 else None
        lost = Scored(
            np.full(1, np.nan),
            np.full((1, tasks), np.nan),
            np.full((1, tasks), np.nan, np.float32),
            distances=None if gate is None else np.full((1, tasks, len(gate.stages)), np.nan),
        )
        parts = [one or lost for one in said]

        def whole(of: Callable[[Scored], NDArray[Any] | None]) -> NDArray[Any]:
            return np.concatenate([of(lost)[:0], *map(of, parts)])  # type: ignore[index]

        aspects = {}
        for place, (name, words) in enumerate(WORDS.items()):
            if name in self._scorer.aspects:
                missing = np.full((1, len(words)), np.nan, np.float32)
                each = [missing if one is None or one.aspects is None else one.aspects[place] for one in said]
                aspects[name] = (words, np.concatenate([missing[:0], *each]))
        return PictureScores(
            images=names,
            scores=whole(lambda one: one.scores),
            tasks=self.tasks,
            heads=whole(lambda one: one.heads),
            weights=whole(lambda one: one.weights),
            distances=None if gate is None else whole(lambda one: one.distances),
            aspects=aspects,
            percentiles=np.array([one.percentile for one in read]) if "percentile" in shown else None,
            words=[one.word for one in read] if "word" in shown else None,
            novelty=np.array([one.novelty for one in read]) if "novelty" in shown else None,
            errors=[one.error for one in found],
            notes=[one.notes for one in found],
            _rows=rows,
            _columns=columns,
        )
