#!/bin/sh
# Made this folder with the code of release 0.1.0: a run of two strategies on two generated datasets, and its bundle.
# Needs a checkout of this repository and an environment in which it is installed: PYTHON=... tests/run_0_1_0/make.sh
set -e
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
old=$(mktemp -d)
git -C "$here" worktree add --detach "$old/code" 90f68ba
trap 'git -C "$here" worktree remove --force "$old/code"; rm -rf "$old"' EXIT
export PYTHONPATH="$old/code" CLIQA_CACHE="$old/cache"
cd "$old"  # so that no path goes with the results
"$python" -m cliqa_bench data make IQA --scale 0.25
"$python" -m cliqa_bench run --strategy tsn,naive --orders live,bid --data IQA --jobs 1 --set naive.heads=single \
  --set training.warmup_epochs=1 --set training.epochs=2 --set tsn.centroids=4
"$python" -m cliqa_bench verify runs --pack bundle.zip
# a report is written again, the weights of whole networks are large, and pictures are not looked at here
find runs/report -type f ! -name results.csv -delete
rm runs/train/naive-*/*.safetensors runs/pictures/*/*.png
rm -rf "$here/runs" "$here/bundle.zip"
mv runs bundle.zip "$here"
