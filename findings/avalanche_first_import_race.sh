#!/usr/bin/env bash
# Avalanche cannot be imported for the first time by two processes at once.
#
# The first import creates ~/.avalanche/config.json in two steps: it opens the file, then writes it. A process that
# imports Avalanche between the two sees that the file exists, reads it while it is empty, and fails. With
# `pytest -n auto`, torchrun or a pool of workers on a fresh account, this happens by chance. Here the first process
# waits for half a minute between the two steps, so that it happens every time.
#
# Versions: avalanche-lib 0.6.0 (torch 2.14.1, torchvision 0.29.1), Python 3.11, Linux.
# Output seen:
#   second process: JSONDecodeError: Expecting value: line 1 column 1 (char 0)
#   third process, once the file is whole: imported
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet avalanche-lib==0.6.0 torch==2.14.1 torchvision==0.29.1
export HOME="$work/home"
mkdir "$HOME"
cat >"$work/slow_first.py" <<'PY'
import json
import time

dump = json.dump


def slow_dump(value, file, **kwargs):
    if file.name.endswith("/.avalanche/config.json"):
        time.sleep(30)
    dump(value, file, **kwargs)


json.dump = slow_dump
import avalanche  # noqa: F401
PY
"$work/venv/bin/python" -W ignore "$work/slow_first.py" >/dev/null 2>&1 &
first=$!
until [ -e "$HOME/.avalanche/config.json" ]; do
  kill -0 "$first"  # ended without the file: something has changed
  sleep 0.1
done
second="$("$work/venv/bin/python" -W ignore -c 'import avalanche' 2>&1 | tail -n 1 || true)"
wait "$first"
third="$("$work/venv/bin/python" -W ignore -c 'import avalanche; print("imported")' 2>&1 | tail -n 1)"
echo "second process: ${second#json.decoder.}"
echo "third process, once the file is whole: $third"
[[ "$second" == *"JSONDecodeError: Expecting value: line 1 column 1 (char 0)" ]]
[ "$third" = imported ]
