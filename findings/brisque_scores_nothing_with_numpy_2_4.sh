#!/usr/bin/env bash
# brisque 0.2.0, as pip installs it today, cannot score any picture: NumPy 2.4 no longer turns (1,) arrays into floats.
#
# Its sums of squares are divided by a shape, a tuple of one number, and so are arrays of one element (brisque.py,
# mean_squares_sum). scale_features turns each feature into a float; NumPy has warned of that for one-element arrays
# since 1.25 and refuses it in 2.4. The package asks for numpy>=1.20, without an upper limit. With numpy 1.26.4 (and
# scipy 1.13, opencv 4.10) it works. To compare with BRISQUE, give it an environment of its own.
#
# Versions: brisque 0.2.0, numpy 2.4.6, scipy 1.17.1, scikit-image 0.26.0, opencv-python-headless 5.0.0.93,
# libsvm-official 3.37.0, Python 3.11, Linux.
# Output seen:
#   numpy 2.4.6: TypeError: only 0-dimensional arrays can be converted to Python scalars
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet brisque==0.2.0 numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 \
  opencv-python-headless==5.0.0.93 libsvm-official==3.37.0
cat >"$work/score.py" <<'PY'
import numpy as np
from brisque import BRISQUE

picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
try:
    said = f"scores {BRISQUE(url=False).score(picture):.3f}"
except TypeError as error:
    said = f"TypeError: {error}"
print(f"numpy {np.__version__}: {said}")
PY
seen="$("$work/venv/bin/python" "$work/score.py")"
echo "$seen"
expected="numpy 2.4.6: TypeError: only 0-dimensional arrays can be converted to Python scalars"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; expected: $expected" >&2
  exit 1
fi
