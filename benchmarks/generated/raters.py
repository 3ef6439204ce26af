"""From measures of a picture to the ratings of a panel: measures, latent quality, raters.

1. Three full-reference measures by `piq`: HaarPSI (Reisenhofer et al., 2018), MDSI (Nafchi et al., 2016) and
   VIFp (Sheikh and Bovik, 2006). HaarPSI is taken without its sub-sampling: the miniatures are a quarter as
   wide as the pictures it was tuned on, and with it, pixelation by two would go unseen.
2. Each becomes a defect in 0..1; a panel weighs the three by what it was asked to look at, and a falling
   logistic curve, flat at both ends as in VQEG's mapping, turns the sum into a latent quality in 0..1.
3. Every rater adds bias, use of the scale and noise. Means and deviations over raters become the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.generated.colour import ByteImage
from cliqa_bench.seeds import Rng

Column = NDArray[np.float64]

MEASURES = ("haarpsi", "mdsi", "vifp", "colourfulness")


def measure(references: ByteImage, pictures: ByteImage) -> NDArray[np.float64]:
    """Measures pictures of one size against their references.

    Args:
        references: (n, H, W, 3) uint8, both sides at least 41 pixels.
        pictures: (n, H, W, 3) uint8.

    Returns:
        (n, 4): `MEASURES`; the first three compare, the last is the colourfulness of the picture itself.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the pictures are small, and results must not depend on the machine's cores
    try:
        compared = _compare(references, pictures)
    finally:
        torch.set_num_threads(threads)
    return np.stack([*compared, colourfulness(pictures)], 1)


def _compare(references: ByteImage, pictures: ByteImage) -> list[Column]:
    """Returns HaarPSI, MDSI and VIFp of every picture."""
    import piq
    import torch

    step = max(1, round(float(np.sqrt(pictures.shape[1] * pictures.shape[2] / (128 * 96)))))
    x, y = (
        torch.nn.functional.avg_pool2d(torch.from_numpy(a).permute(0, 3, 1, 2).float() / 255, step)
        for a in (pictures, references)
    )
    with torch.no_grad():
        columns = [
            piq.haarpsi(x, y, reduction="none", subsample=False),
            piq.mdsi(x, y, reduction="none"),
            piq.vif_p(x, y, reduction="none"),
        ]
    return [column.numpy().astype(np.float64) for column in columns]


def colourfulness(pictures: ByteImage) -> Column:
    """Returns Hasler and Süsstrunk's colourfulness (2003) of (n, H, W, 3) uint8: 0 gray, 109 extreme."""
    r, g, b = (pictures[..., c].astype(np.float64) for c in range(3))
    first, second = r - g, (r + g) / 2 - b
    axes = (1, 2)
    spread = np.sqrt(first.var(axes) + second.var(axes))
    mean = np.sqrt(first.mean(axes) ** 2 + second.mean(axes) ** 2)
    result: Column = spread + 0.3 * mean
    return result


@dataclass(frozen=True)
class Panel:
    """The people of one study and what they were asked.

    Attributes:
        weights: How much HaarPSI, MDSI and VIFp count.
        middle: Defect at which latent quality is one half.
        slope: Width of the logistic curve, in units of the defect.
        colour: How much colourful pictures are preferred, in units of the defect.
        raters: Number of raters.
        bias: Deviation of the raters' biases, in units of latent quality (0..1), like the next ones.
        use: Deviation of the logarithm of the raters' use of the scale.
        noise: Deviation of one opinion around the rater's own mean.
        taste: Deviation of what all raters share about a picture and no measure knows.
    """

    weights: tuple[float, float, float]
    middle: float = 0.45
    slope: float = 0.16
    colour: float = 0.0
    raters: int = 24
    bias: float = 0.06
    use: float = 0.15
    noise: float = 0.10
    taste: float = 0.02


def defect(measures: NDArray[np.float64], panel: Panel) -> Column:
    """Returns the defect (n,) that a panel sees: about 0 for a perfect picture, about 1 for a ruined one."""
    haarpsi, mdsi, vifp, colourful = measures.T
    parts = np.stack(
        [
            np.clip((1 - haarpsi) / 0.75, 0, 1.1),
            np.clip((mdsi - 0.08) / 0.45, 0, 1.1),  # its fourth root makes even invisible faults 0.1
            np.clip(1 - np.clip(vifp, 0, 1) ** 0.6, 0, 1.1),
        ],
        1,
    )
    weights = np.asarray(panel.weights) / sum(panel.weights)
    seen: Column = parts @ weights - panel.colour * np.tanh((colourful - 45) / 30)
    return seen


def latent_quality(measures: NDArray[np.float64], panel: Panel) -> Column:
    """Returns the latent quality (n,) in 0..1, higher is better: a logistic of the defect, 1 at defect 0."""
    seen = defect(measures, panel)

    def curve(d: Column | float) -> Column:
        return np.asarray(1 / (1 + np.exp((np.asarray(d) - panel.middle) / panel.slope)))

    low, high = curve(1.1), curve(0.0)
    return np.asarray(np.clip((curve(seen) - low) / (high - low), 0, 1))


def opinions(quality: Column, panel: Panel, rng: Rng) -> NDArray[np.float64]:
    """Asks every rater about every picture.

    Args:
        quality: (n,) latent quality in 0..1.
        panel: The raters.
        rng: Their randomness.

    Returns:
        (n, raters) opinions in 0..1; at both ends of the scale people agree more, since it ends there.
    """
    shared = quality + rng.normal(0, panel.taste, len(quality))
    bias = rng.normal(0, panel.bias, panel.raters)
    use = np.exp(rng.normal(0, panel.use, panel.raters))
    doubt = panel.noise * (0.5 + 2 * np.clip(shared * (1 - shared), 0, 0.25))
    noise = rng.normal(0, 1, (len(quality), panel.raters)) * doubt[:, None]
    said: NDArray[np.float64] = np.clip(0.5 + (shared[:, None] - 0.5) * use + bias + noise, 0, 1)
    return said


def z_scores(said: NDArray[np.float64]) -> NDArray[np.float64]:
    """Removes each rater's bias and use of the scale: zero mean and unit deviation per column (n, raters)."""
    deviation = said.std(0, ddof=1, keepdims=True) if len(said) > 1 else np.ones((1, said.shape[1]))
    result: NDArray[np.float64] = (said - said.mean(0, keepdims=True)) / np.maximum(deviation, 1e-9)
    return result
