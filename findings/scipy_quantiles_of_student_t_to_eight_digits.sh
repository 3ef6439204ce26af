#!/usr/bin/env bash
# scipy 1.11's quantiles of Student's t are right to eight or nine digits only; those of 1.17 to fifteen.
#
# The quantile for four degrees of freedom has a closed form. scipy.stats.t.ppf of 1.11.1 is 5e-9 off at .95, though
# its distribution function, t.cdf, is exact to the last digits in both: asked for the probability of its own
# quantile, it does not say .95. Confidence intervals that one version computes and another one checks differ by
# more than any tolerance meant for rounding. Two steps of Newton's method on t.cdf give the same digits in both.
#
# Versions: scipy 1.11.1 with numpy 1.26.4; scipy 1.17.1 with numpy 2.4.6; Python 3.11, Linux.
# Output seen:
#   scipy 1.11.1: quantile off by more than 1e-10: True; after two Newton steps within 1e-14: True
#   scipy 1.17.1: quantile off by more than 1e-10: False; after two Newton steps within 1e-14: True
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cat >"$work/quantile.py" <<'PY'
import math

import scipy
from scipy.stats import t

p = 0.95
inner = 4 * p * (1 - p)
exact = 2 * math.sqrt(math.cos(math.acos(math.sqrt(inner)) / 3) / math.sqrt(inner) - 1)
found = polished = float(t.ppf(p, 4))
for _ in range(2):
    polished -= (float(t.cdf(polished, 4)) - p) / float(t.pdf(polished, 4))
print(
    f"scipy {scipy.__version__}: quantile off by more than 1e-10: {abs(found - exact) > 1e-10}; "
    f"after two Newton steps within 1e-14: {abs(polished - exact) < 1e-14}"
)
PY
seen=""
for versions in "scipy==1.11.1 numpy==1.26.4" "scipy==1.17.1 numpy==2.4.6"; do
  rm -rf "$work/venv"
  python3.11 -m venv "$work/venv"
  # shellcheck disable=SC2086
  "$work/venv/bin/python" -m pip install --quiet $versions
  seen+="$("$work/venv/bin/python" "$work/quantile.py")"$'\n'
done
printf '%s' "$seen"
expected="scipy 1.11.1: quantile off by more than 1e-10: True; after two Newton steps within 1e-14: True
scipy 1.17.1: quantile off by more than 1e-10: False; after two Newton steps within 1e-14: True
"
if [ "$seen" != "$expected" ]; then
  printf 'this has changed; expected:\n%s' "$expected" >&2
  exit 1
fi
