"""What do the intervals of the reports cover? Simulates test sets and models, and counts.

In the checkout's root: `PYTHONPATH=. python tests/coverage_of_intervals.py [--draws N] [--only NAME]`. It
takes ten minutes on one core and prints the table of docs/statistics.md. It is not part of the test suite.

A test set of G contents with m images each is drawn from a population without end; a model rates an image
by its quality plus a bias for its content plus noise. What is to be covered is the SRCC of the same model on
the whole population (from 400,000 images), and for two models of equal skill, a difference of 0. Three rivals
stand beside ours: the percentile bootstrap over images, the same over contents, and Bonett and Wright's
interval for independent images.
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from cliqa_bench import metrics
from cliqa_bench.reports.tables.jackknife import MeasuredSrcc, difference, mean_estimate, without_each

Float = NDArray[np.float64]
LEVEL = 0.95
RESAMPLES = 400


class Size(NamedTuple):
    """A test set: a fifth of the dataset, as the suite splits it."""

    contents: int
    images: int


SETS = {
    "LIVE": Size(6, 27),
    "CSIQ": Size(6, 29),
    "BID": Size(117, 1),
    "LIVE Challenge": Size(232, 1),
    "KonIQ-10k": Size(2015, 1),
    "KADID-10k": Size(16, 125),
}


class Model(NamedTuple):
    """How a model errs, in units of the standard deviation of quality."""

    name: str
    bias: float
    noise: float


MODELS = (
    Model("no bias", 0.0, 0.5),
    Model("bias .5", 0.5, 0.5),
    Model("bias .3, little noise", 0.3, 0.2),
)


def draw(size: Size, model: Model, rng: np.random.Generator, models: int = 1) -> tuple[Float, Float]:
    """Draws a test set and what models of equal skill say of it.

    Of distorted contents, each has the same levels of quality; the models share a part of their bias.

    Returns:
        Opinions (G, m) and predictions (models, G, m).
    """
    g, m = size
    level = np.linspace(-1.7, 1.7, m) if m > 1 else rng.normal(size=(g, 1))
    quality = level + 0.3 * rng.normal(size=(g, 1)) + 0.3 * rng.normal(size=(g, m)) * (m > 1)
    shared = 0.6 * rng.normal(size=(g, 1))
    own = 0.8 * rng.normal(size=(models, g, 1))
    return quality, quality + model.bias * (shared + own) + model.noise * rng.normal(size=(models, g, m))


def truth(size: Size, model: Model) -> float:
    """Returns the SRCC on the population."""
    many = Size(400_000 // size.images, size.images)
    quality, told = draw(many, model, np.random.default_rng(1))
    return metrics.srcc(told[0].ravel(), quality.ravel())


def agreement(quality: Float, told: Float) -> MeasuredSrcc:
    """Returns what the reports know of one model with one seed."""
    contents = np.repeat(np.arange(quality.shape[0]), quality.shape[1])
    scores, mos = told.ravel(), quality.ravel()
    return MeasuredSrcc([metrics.srcc(scores, mos)], without_each(scores, mos, contents)[None], len(mos))


def _rows_srcc(x: Float, y: Float) -> Float:
    a, b = (rankdata(v, axis=-1) for v in (x, y))
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    return np.asarray((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def bootstrap(x: Float, y: Float, rng: np.random.Generator) -> tuple[float, float]:
    """Returns the percentile interval of the SRCC; rows of (units, images) are drawn with replacement."""
    drawn = rng.integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.quantile(
        _rows_srcc(x[drawn].reshape(RESAMPLES, -1), y[drawn].reshape(RESAMPLES, -1)), [0.025, 0.975]
    )
    return float(low), float(high)


def bonett_wright(r: float, n: int) -> tuple[float, float]:
    """Returns the interval for n independent images (Psychometrika 65, 2000)."""
    half = norm.ppf(1 - (1 - LEVEL) / 2) * math.sqrt((1 + r * r / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def coverage(name: str, model: Model, draws: int) -> dict[str, float]:
    """Returns how often each interval holds the truth, and the median length of ours."""
    size, rng = SETS[name], np.random.default_rng([sum(name.encode()), round(100 * model.bias)])
    right = truth(size, model)
    hits: dict[str, list[bool]] = {}
    lengths = []
    few = min(draws, 200)  # the bootstraps are slow
    for i in range(draws):
        quality, told = draw(size, model, rng, models=2)
        one, other = (agreement(quality, t) for t in told)
        low, high = mean_estimate([one]).interval
        ends = {"Bonett-Wright, images": bonett_wright(one.value, one.images)}
        if i < few and size.contents * size.images < 700:
            ends["bootstrap, images"] = bootstrap(told[0].reshape(-1, 1), quality.reshape(-1, 1), rng)
            ends["bootstrap, contents"] = bootstrap(told[0], quality, rng)
        for what, (bottom, top) in ends.items():
            hits.setdefault(what, []).append(bottom <= right <= top)
        hits.setdefault("ours", []).append(low <= right <= high)
        bottom, top = difference([one], [other], paired=True).interval
        hits.setdefault("ours, difference", []).append(bottom <= 0 <= top)
        lengths.append(high - low)
    return {what: float(np.mean(h)) for what, h in hits.items()} | {"length": float(np.median(lengths))}


def of_all_six(model: Model, draws: int) -> dict[str, float]:
    """Returns the same for mSRCC, the mean over the six test sets."""
    rng = np.random.default_rng(round(1000 * model.bias) + 7)
    right = float(np.mean([truth(size, model) for size in SETS.values()]))
    hits, apart, lengths = [], [], []
    for _ in range(draws):
        sets = [draw(size, model, rng, models=2) for size in SETS.values()]
        one, other = ([agreement(quality, told[k]) for quality, told in sets] for k in (0, 1))
        low, high = mean_estimate(one).interval
        bottom, top = difference(one, other, paired=True).interval
        hits.append(low <= right <= high)
        apart.append(bottom <= 0 <= top)
        lengths.append(high - low)
    return {
        "ours": float(np.mean(hits)),
        "ours, difference": float(np.mean(apart)),
        "length": float(np.median(lengths)),
    }


COLUMNS = (
    "bootstrap, images",
    "bootstrap, contents",
    "Bonett-Wright, images",
    "ours",
    "length",
    "ours, difference",
)


def line(name: str, model: Model, found: dict[str, float]) -> str:
    """Returns a row of the table."""
    cells = [f"{found[c]:.3f}" if c in found else "—" for c in COLUMNS]
    return "| " + " | ".join([name, model.name, *cells]) + " |"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="how many test sets of each kind")
    parser.add_argument("--only", default="", help="a test set")
    args = parser.parse_args()
    print("| test set | model | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---:|" * len(COLUMNS))
    for model in MODELS:
        for name in (name for name in SETS if args.only in name):
            draws = args.draws if SETS[name].contents < 1000 else max(1, args.draws // 5)
            print(line(name, model, coverage(name, model, draws)), flush=True)
        if not args.only:
            print(line("all six (mSRCC)", model, of_all_six(model, max(1, args.draws // 5))), flush=True)


if __name__ == "__main__":
    main()
