#!/usr/bin/env bash
# submitit takes a time limit in Slurm's words and then cannot put a task back into the queue before it.
#
# `SlurmExecutor.update_parameters(time="4:00:00")` is accepted, and so is the job: sbatch reads the time. When the
# signal comes before the limit (or on preemption), the handler multiplies that text by 60 to learn whether the limit
# is near, raises a TypeError, and the task ends without being requeued. A number of minutes works. Here sbatch and srun
# are two lines of shell, so that no Slurm is needed: what was submitted is read back and asked.
#
# Versions: submitit 1.5.4, Python 3.11, Linux.
# Output seen:
#   time=240: not near its limit
#   time='4:00:00': TypeError: can't multiply sequence by non-int of type 'float'
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet submitit==1.5.4
mkdir "$work/bin"
printf '#!/bin/sh\necho "Submitted batch job 7"\n' >"$work/bin/sbatch"
printf '#!/bin/sh\n' >"$work/bin/srun"
chmod +x "$work/bin/sbatch" "$work/bin/srun"
export PATH="$work/bin:$PATH"
cat >"$work/ask.py" <<'PY'
import sys

import submitit
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmJobEnvironment

for time in (240, "4:00:00"):
    executor = submitit.SlurmExecutor(f"{sys.argv[1]}/{str(time).replace(':', '-')}")
    executor.update_parameters(time=time)
    job = executor.submit(print)
    delayed = DelayedSubmission.load(job.paths.submitted_pickle)
    handler = SignalHandler(SlurmJobEnvironment(), job.paths, delayed)
    try:
        answer = "near its limit" if handler.has_timed_out() else "not near its limit"
    except TypeError as error:
        answer = f"TypeError: {error}"
    print(f"time={time!r}: {answer}")
PY
answers="$("$work/venv/bin/python" "$work/ask.py" "$work" 2>/dev/null)"
echo "$answers"
[[ "$answers" == *"time=240: not near its limit"* ]]
[[ "$answers" == *"time='4:00:00': TypeError: can't multiply sequence by non-int of type 'float'"* ]]
