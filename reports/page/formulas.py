"""The formulas of a report's numbers, as the page shows them: in a section of their own, and on hover."""

from __future__ import annotations

from typing import NamedTuple

from cliqa_bench.reports.tables.jackknife import LEVEL, POWER


class Formula(NamedTuple):
    """How a number is computed.

    Attributes:
        name: What it is called in the heads of the tables.
        text: The formula, with what its letters mean.
        also: Further heads over it.
    """

    name: str
    text: str
    also: tuple[str, ...] = ()


FORMULAS = (
    Formula(
        "SRCC",
        "1 − 6 Σ d² / (n(n² − 1)); d: difference between an image's ranks by prediction and by opinion, n: "
        "images. With ties: Pearson's correlation of the average ranks. SRCC_tk: after experience t, on test "
        "set k.",
    ),
    Formula(
        "PLCC",
        "Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² Σ (y − ȳ)²); x: predictions as they are, y: opinions.",
    ),
    Formula(
        "PLCC (logistic)",
        "PLCC of f(x) with y; f(x) = (b₁ − b₂) / (1 + exp(−(x − b₃) / |b₄|)) + b₂, fitted by least "
        "squares.",
    ),
    Formula(
        "KRCC",
        "Kendall's τ_b: (concordant − discordant pairs) / √(pairs not tied in x · pairs not tied in y).",
    ),
    Formula("RMSE (logistic)", "√(Σ (f(x) − y)² / n), f as of PLCC (logistic)."),
    Formula("mSRCC", "1/T Σ_k SRCC_Tk: the mean over the T datasets learned, after the last experience."),
    Formula("PI_t", "SRCC_tt: plasticity, what is learned of dataset t right after learning it."),
    Formula("mPI", "1/T Σ_t PI_t, with PI_t = SRCC_tt."),
    Formula(
        "S",
        "S_tk: SRCC between the predictions after experience t and those after experience k, on test set k.",
    ),
    Formula("SI_t", "1/(t − 1) Σ_{k<t} S_tk, and SI_1 = 1: stability, how little predictions have changed."),
    Formula(
        "mSI",
        "1/T Σ_t SI_t, with SI_1 = 1 and SI_t = 1/(t − 1) Σ_{k<t} S_tk; S_tk: SRCC between the predictions "
        "after experiences t and k, on test set k.",
    ),
    Formula("PSI_t", "(PI_t + SI_t) / 2: the trade-off between plasticity and stability."),
    Formula("mPSI", "1/T Σ_t PSI_t = (mPI + mSI) / 2, with PSI_t = (PI_t + SI_t) / 2."),
    Formula(
        "Interval",
        f"{LEVEL:.0%}: tanh(artanh r ± q s / (1 − r²)) for a correlation r, d ± q s for a difference d. s²: "
        "Tukey's jackknife variance over the contents of the test images plus the variance over seeds, or of "
        "n splits 1/n + 2/7 times the variance between them; q: "
        f"the {1 - (1 - LEVEL) / 2:.1%} quantile of Student's t, degrees of freedom by Welch and "
        "Satterthwaite.",
        ("Low", "High"),
    ),
    Formula(
        "Could be shown",
        f"(q_{1 - (1 - LEVEL) / 2:g} + q_{POWER:g}) s: a true difference of this size has an interval "
        f"without 0 with probability {POWER:g}; q: quantiles of Student's t, s as of the interval.",
    ),
    Formula(
        "Seeds needed",
        "The smallest number of seeds with which the difference that was found could be shown.",
    ),
    Formula("Forgetting", "1/(T − 1) Σ_{k<T} (max_{k≤t<T} SRCC_tk − SRCC_Tk)."),
    Formula("BWT", "Backward transfer, 1/(T − 1) Σ_{k<T} (SRCC_Tk − SRCC_kk)."),
    Formula("FWT", "Forward transfer, 1/(T − 1) Σ_{k>1} SRCC_(k−1)k."),
)  # fmt: skip
"""In the order of the page."""
