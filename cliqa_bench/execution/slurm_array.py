"""Hands runs to Slurm: an array of identical tasks that share the work through the folder of results.

No task knows of another: each is a run in one process that does what no other is doing. So tasks may start as
slots come free, die, be preempted or run out of time: what they finished stays, and an experience that was
interrupted is resumed at its checkpoint. Before the time limit Slurm sends a signal, and submitit puts the
task back into the queue.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cliqa_bench.config import LOCAL, RunConfig
from cliqa_bench.errors import UserError, join_names
from cliqa_bench.execution.run import prepare_splits, run_all
from cliqa_bench.progress import say, warn
from cliqa_bench.results.failures import read_failures
from cliqa_bench.settings.slurm_options import SlurmOptions

LOGS = "slurm"
"""Folder of the output folder with what the tasks print."""

POLL = 5.0
"""Seconds between two looks into Slurm's queue."""

REQUEUES = 10_000
"""How often a task may run out of time: all of them together end when the work does."""


@dataclass(frozen=True)
class SlurmArray:
    """Runs into one output folder, as tasks of an array.

    Attributes:
        configs: What to run.
        command: The command line that would do it again.
        failed: What has failed before, a line each.
        formats: As in `run`.
        figures: As in `run`.
    """

    configs: Sequence[RunConfig]
    command: str
    failed: Sequence[str]
    formats: Sequence[str]
    figures: bool

    def __call__(self) -> int:
        """Does what no other run is doing, in this process; what a task of the array calls."""
        try:
            return run_all(
                self.configs,
                self.command,
                self.failed,
                formats=self.formats,
                figures=self.figures,
                shared=True,
            )
        except UserError as error:
            warn(f"cliqa-bench: error: {error}")
            return 2

    def checkpoint(self) -> Any:
        """Returns what the task does when it has been put back into the queue: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def submit(self, options: SlurmOptions, wait: bool) -> int:
        """Submits the array, and prints its id.

        Args:
            options: How.
            wait: Whether to stay until it has ended, and to write the report then.

        Returns:
            The exit code: 0; with `wait`, that of the report.

        Raises:
            UserError: If there is no Slurm here, submitit is not installed, or Slurm refuses the options.
        """
        out = self.configs[0].out.absolute()
        _check(options)
        alone = replace(self, configs=[_task_of(config) for config in self.configs])
        job = _submit(alone, out / LOGS, options)
        print(f"job {job}: {options.array} tasks; logs in {out / LOGS}, progress: cliqa-bench status {out}")
        if not wait:
            return 0
        say(f"waiting for job {job}; it keeps running if you stop this command (scancel {job} ends it)")
        _await(job)
        return self._result()

    def _result(self) -> int:
        """Writes the report if all is done, else prints what is left."""
        left = [name for config in self.configs for name in _left(config)]
        if not left:
            return run_all(
                [replace(config, jobs=1, executor=LOCAL) for config in self.configs],
                self.command, self.failed, formats=self.formats, figures=self.figures,
            )  # fmt: skip
        for body in read_failures(self.configs[0].out).values():
            warn(f"failed: {body['title']}: {body['reason']} ({body['where']})")
        warn(f"not done: {join_names(left)}; see the logs, and run the same command to resume")
        return 1


def _task_of(config: RunConfig) -> RunConfig:
    return replace(config, out=config.out.absolute(), jobs=1, executor=LOCAL)


def _left(config: RunConfig) -> Iterator[str]:
    for plan in prepare_splits(config, ""):
        for works in plan.missing():
            yield from (f"{work.node.kind}/{work.node.id}" for work in works)


# -- Slurm's commands ----------------------------------------------------------------------------------------


def _check(options: SlurmOptions) -> None:
    """Asks Slurm whether it would take such a job; writes nothing.

    Raises:
        UserError: If it would not, or is not there.
    """
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise UserError(f"--executor slurm: no {program} here; run it on a machine that submits to Slurm")
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--executor slurm needs the package submitit ({error}): pip install 'cliqa-bench[slurm]'"
        ) from error
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.more.items()]
    command = ["sbatch", "--test-only", f"--time={options.minutes}", f"--array=0-{options.array - 1}", *flags]
    done = subprocess.run([*command, "--wrap=true"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"--slurm: {_complaint(done.stderr)}")


def _complaint(text: str) -> str:
    lines = [re.sub(r"^(sbatch|allocation failure)?:? ?(error: )?", "", line) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines))) or "sbatch refuses it, and does not say why"


def _submit(task: SlurmArray, folder: Any, options: SlurmOptions) -> str:
    """Submits the tasks; returns the job's id."""
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
    cpus = options.more.get("cpus-per-task")
    executor.update_parameters(
        job_name="cliqa-bench",
        time=options.minutes,  # a number: a text such as "4:00:00" breaks what submitit does at the signal
        signal_delay_s=options.warning,
        array_parallelism=options.array,
        stderr_to_stdout=True,
        # since Slurm 22.05 srun does not take it over from sbatch
        srun_args=[f"--cpus-per-task={cpus}"] if cpus else [],
        additional_parameters={"requeue": True, **options.more},
    )
    try:
        if options.array == 1:
            return str(executor.submit(task).job_id)
        with executor.batch():
            jobs = [executor.submit(task) for _ in range(options.array)]
    except (FailedJobError, OSError, subprocess.SubprocessError) as error:
        raise UserError(f"--executor slurm: {_complaint(str(error))}") from error
    return str(jobs[0].job_id).partition("_")[0]


def _await(job: str) -> None:
    """Waits until no task of a job is in Slurm's queue; says how many are when that changes."""
    before = ""
    while states := _states(job):
        text = ", ".join(f"{n} {state.lower()}" for state, n in sorted(states.items()))
        if text != before:
            say(f"job {job}: {text}")
        before = text
        time.sleep(POLL)


def _states(job: str) -> Counter[str]:
    """Returns how many tasks of a job are in which state; none once it has left the queue.

    Not by `sacct`, as submitit does: clusters without an accounting database have none.
    """
    ask = ["squeue", "--noheader", "--array", "--format=%T", f"--jobs={job}"]
    while True:
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return Counter(done.stdout.split())
        if "Invalid job id" in done.stderr:
            return Counter()
        time.sleep(POLL)  # the controller is busy, or restarts
