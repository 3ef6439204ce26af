#!/usr/bin/env bash
# timm's step schedule has decayed by the time that its warm-up ends, if it is made by create_scheduler_v2.
#
# With three epochs of warm-up and a tenth every three epochs, create_scheduler_v2 gives no epoch the rate that the
# optimiser was made with: it rises to two thirds of it, and the next epoch has a tenth. The scheduler that it makes,
# StepLRScheduler, counts from the end of the warm-up if it is made directly (warmup_prefix is True there and False in
# create_scheduler_v2), and gives the full rate for three epochs. The published code of a quality model (SS-IQA, AAAI
# 2024) takes this schedule with these numbers, and so trains at another rate than its paper says.
#
# Versions: timm 1.0.31 (torch 2.14.1, torchvision 0.29.1), Python 3.11, Linux.
# Output seen:
#   create_scheduler_v2: 2e-07 6.68e-05 0.000133 2e-05 2e-05 2e-05 2e-06 2e-06 2e-06
#   StepLRScheduler:     2e-07 6.68e-05 0.000133 0.0002 0.0002 0.0002 2e-05 2e-05 2e-05
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet timm==1.0.31 torch==2.14.1 torchvision==0.29.1
export HOME="$work"
cat >"$work/schedule.py" <<'PY'
import torch
from timm.scheduler import StepLRScheduler, create_scheduler_v2


def rates(make):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    scheduler, found = make(optimiser), []
    for epoch in range(9):
        scheduler.step(epoch)
        found.append(f"{optimiser.param_groups[0]['lr']:.3g}")
    return " ".join(found)


def by_factory(optimiser):
    return create_scheduler_v2(
        optimiser, sched="step", num_epochs=9, decay_epochs=3, decay_rate=0.1, warmup_epochs=3, warmup_lr=2e-7
    )[0]


def by_class(optimiser):
    return StepLRScheduler(optimiser, decay_t=3, decay_rate=0.1, warmup_t=3, warmup_lr_init=2e-7)


print("create_scheduler_v2:", rates(by_factory))
print("StepLRScheduler:    ", rates(by_class))
PY
seen="$("$work/venv/bin/python" "$work/schedule.py")"
echo "$seen"
expected="create_scheduler_v2: 2e-07 6.68e-05 0.000133 2e-05 2e-05 2e-05 2e-06 2e-06 2e-06
StepLRScheduler:     2e-07 6.68e-05 0.000133 0.0002 0.0002 0.0002 2e-05 2e-05 2e-05"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; expected: $expected" >&2
  exit 1
fi
