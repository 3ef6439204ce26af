"""`run` and `plan`: what the command line asks for, from labels to report."""

from __future__ import annotations

import datetime
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cliqa_bench.benchmarks.decoded import open_source
from cliqa_bench.benchmarks.generated.make import default_root, made
from cliqa_bench.benchmarks.labelled import load_materials, say_notes, without_home
from cliqa_bench.benchmarks.parts import check_order
from cliqa_bench.benchmarks.pixels.hashes import is_known
from cliqa_bench.config import DASK, LOCAL, RunConfig, each_split
from cliqa_bench.errors import UserError
from cliqa_bench.execution.clean import at_work, workers
from cliqa_bench.execution.estimate import estimate, left_to_do
from cliqa_bench.execution.job_queue import Outcome
from cliqa_bench.execution.jobs import jobs_of, processes
from cliqa_bench.execution.plan import Missing, Plan, make_plan
from cliqa_bench.execution.pools import check_executor
from cliqa_bench.execution.scheduler import run_jobs
from cliqa_bench.execution.work_size import images_of, size_of
from cliqa_bench.progress import say, warn
from cliqa_bench.results.nodes import clean_partial, read_json, write_text
from cliqa_bench.results.records import write_record
from cliqa_bench.settings.choice import Choice, choose
from cliqa_bench.settings.resolve import config_dict
from cliqa_bench.system.versions import versions
from cliqa_bench.terminal import plural, text_table


def prepare(config: RunConfig, command: str, decode: bool = False) -> Plan:
    """Loads labels and splits and plans the work.

    Args:
        config: The configuration.
        command: The command line that would do it again; goes with the results.
        decode: Whether to decode datasets never seen before at once: their images are hashed on the way, and
            so are read once and not twice.

    Raises:
        UserError: If data, names or weights are wrong.
    """
    return lay_out(choose(config), command, decode)


def lay_out(choice: Choice, command: str, decode: bool = False) -> Plan:
    """Loads labels and splits and plans the work of a configuration whose names are resolved.

    Args:
        choice: The configuration.
        command: As in `prepare`.
        decode: As in `prepare`.

    Raises:
        UserError: If data or names are wrong.
    """
    config = choice.config
    names = list(dict.fromkeys(name for order in config.orders.values() for name in order))
    for strategy, (label, order) in itertools.product(choice.strategies, config.orders.items()):
        strategy.check_labels(label, order)
    materials = load_materials(names, config.data, config.split, config.test_on, config.srgb)
    splits = {name: material.split for name, material in materials.items()}
    for label, order in config.orders.items():
        check_order(label, order, splits)
    facts: dict[str, Any] = {
        "command": command,
        "config": config_dict(config),
        "preset": config.preset,
        "weights": choice.weights,
        "split": config.split,
        "device": config.device,
        "versions": versions(),
        "code": choice.code,
    }
    if decode:  # once it is known that weights and names are right
        for material in materials.values():
            if not is_known(material.dataset.root, material.paths):
                open_source(material, config.training.resize, max_megapixels=config.max_megapixels)
    return make_plan(choice, materials, facts)


def prepare_splits(config: RunConfig, command: str, decode: bool = False) -> list[Plan]:
    """Plans the work of every split that a configuration asks for; see `prepare`.

    Raises:
        UserError: As `prepare`; or if two of several splits are the same.
    """
    plans = [prepare(one, command, decode) for one in each_split(config)]
    first: dict[tuple[str, ...], str] = {}
    for plan in plans:
        learned = sorted({name for order in config.orders.values() for name in order})
        prints = tuple(plan.materials[name].split.fingerprint for name in learned)
        same = first.setdefault(prints, plan.config.split)
        if same != plan.config.split:
            raise UserError(
                f"--splits: {same} and {plan.config.split} are the same split of {', '.join(learned)}: "
                "labels or files define only one, or there are too few contents for more; leave one out"
            )
    return plans


def run(
    config: RunConfig,
    command: str,
    failed: Sequence[str] = (),
    *,
    formats: Sequence[str] = (),
    figures: bool = True,
) -> int:
    """Trains what is missing, answers what is unanswered, and writes the report.

    Args:
        config: What to run.
        command: The command line that would do it again.
        failed: What has failed before, a line each.
        formats: What the report is written as, see `write_report`; none for all.
        figures: Whether to draw the figures.

    Returns:
        The exit code: 1 where something failed and the rest went on.

    Raises:
        UserError: If data, names or weights are wrong, or the output folder cannot be written.
    """
    return run_all([config], command, failed, formats=formats, figures=figures)


def run_all(
    configs: Sequence[RunConfig],
    command: str,
    failed: Sequence[str] = (),
    *,
    formats: Sequence[str] = (),
    figures: bool = True,
    shared: bool = False,
) -> int:
    """Does several runs into one output folder, one after the other, and writes one report; see `run`.

    Args:
        configs: What to run, all with the same `out`.
        command: The command line that would do it again.
        failed: What has failed before, a line each.
        formats: As in `run`.
        figures: As in `run`.
        shared: Whether others do the same runs on the folder: the last at work writes the report.
    """
    out = configs[0].out
    check_executor(configs[0])
    _check_writable(out)
    with at_work(out):
        failed, skipped = _work_all(configs, command, failed)
        if not shared:
            return _conclude(out, failed, skipped, formats, figures)
    others = workers(out)  # asked once we have stopped working: of two that end together, one sees no other
    if others:
        say(f"still at work: {', '.join(others)}; the last to finish writes the report")
    with at_work(out):
        return _conclude(out, failed, skipped, None if others else formats, figures)


def _work_all(configs: Sequence[RunConfig], command: str, failed: Sequence[str]) -> tuple[list[str], int]:
    """Does the work of several runs; returns what failed, and how much was skipped because of it."""
    clean_partial(configs[0].out)
    for line in failed:
        warn(f"left out: {line}")
    failed = list(failed)
    skipped = 0
    of = sum(len(each_split(config)) for config in configs)
    numbers = itertools.count(1)
    for config in configs:
        plans = prepare_splits(config, command, decode=True)
        unrecorded: list[Plan] = plans
        for plan, number in zip(plans, numbers, strict=False):
            if number == 1:
                say_notes(plan.materials.values())
            place = f"{number}/{of}: " if of > 1 else ""
            print(place + _headline([plan]), flush=True)
            outcome = _do(plan, unrecorded)
            unrecorded = []
            title = f"split {plan.config.split}, " if config.splits else ""
            failed += [f"{title}{job.title}: {reason}" for job, reason in outcome.failed.items()]
            skipped += len(outcome.skipped)
    return failed, skipped


def finish(plan: Plan) -> Outcome:
    """Does what is missing of one plan, as `run` does, and writes no report."""
    _check_writable(plan.config.out)
    with at_work(plan.config.out):
        clean_partial(plan.config.out)
        return _do(plan, [plan])


def _conclude(
    out: Path, failed: Sequence[str], skipped: int, formats: Sequence[str] | None, figures: bool
) -> int:
    """Writes the report (not for formats None), and reports what failed; returns the exit code."""
    if formats is not None and (not failed or any((out / "runs").glob("*.json"))):  # else no job was done
        print(_report(out, formats, figures))
    if not failed:
        return 0
    for line in failed:
        warn(f"failed: {line}")
    left = f"{len(failed)} failed, {skipped} skipped because they depend on them"
    warn(f"{left}; run the same command to try again")
    return 1


def _report(out: Path, formats: Sequence[str], figures: bool) -> str:
    """Writes the report if it would have changed; returns what it says on the terminal."""
    from cliqa_bench.reports.formats import FORMATS
    from cliqa_bench.reports.kept_report import kept_summary

    formats = formats or FORMATS
    kept = kept_summary(out, formats, figures)
    if kept is not None:
        return kept
    from cliqa_bench.reports.report import write_report  # slow to import

    return write_report(out, formats, figures).summary


def _do(plan: Plan, asked: Sequence[Plan]) -> Outcome:
    """Does what is missing of a plan, and writes down all that was asked for."""

    def write_records() -> None:
        # only once it is sure to start: one that cannot must not be in the reports as an unfinished run
        for one in asked:
            _write_records(one)
        text = yaml.safe_dump(config_dict(plan.config), sort_keys=False)
        write_text(plan.config.out / "config.yaml", text)

    missing = plan.missing()
    if any(missing):
        return _work(plan, missing, write_records)
    write_records()
    return Outcome()


def _work(plan: Plan, missing: Missing, ready: Callable[[], None]) -> Outcome:
    """Decodes what must be decoded, then does all jobs."""
    pixels = {}
    for name in missing.used():
        config = plan.config
        source = open_source(
            plan.materials[name], config.training.resize, max_megapixels=config.max_megapixels
        )
        learned = [work.strategy for work in missing.train if name in work.sequence]
        crops = [s.trained_under(config.training).crop for s in learned if s.by_gradient]
        source.check_crop(max(crops, default=0))
        pixels[name] = float(source.cache.shapes.prod(axis=1).mean())
    jobs = jobs_of(plan, pixels, missing)
    n = min(processes(plan, jobs), len(jobs))
    where = f"in {n} processes " if n > 1 else ""
    if plan.config.executor not in (LOCAL, DASK):
        where = f"on the workers of {plan.config.executor} "
    say(left_to_do([plan], [missing]))
    say(f"loading PyTorch and Avalanche {where}(a few seconds)")
    return run_jobs(plan, rebuild_plan, {"versions": versions(), "code": plan.choice.code}, jobs, n, ready)


def rebuild_plan(config: RunConfig) -> Plan:
    """Builds the plan of a configuration once more, in another process."""
    return prepare(config, "")


def _write_records(plan: Plan) -> None:
    """Writes the run records; an existing one keeps its facts, except when it was last asked for."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for record in plan.records:
        path = plan.config.out / "runs" / f"{record.id}.json"
        if path.is_file():
            record.facts.update(read_json(path).get("facts", {}))
        record.facts["asked"] = now
        write_record(plan.config.out, record)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot make this folder ({error.strerror})") from error
    if not os.access(out, os.W_OK):
        raise UserError(f"--out {out}: this folder is not writable; choose another")


def _headline(plans: Sequence[Plan]) -> str:
    config, backbone = plans[0].config, plans[0].backbone
    materials = plans[0].materials.values()
    kind = " and ".join(
        dict.fromkeys("generated miniatures" if m.generated else "real data" for m in materials)
    )
    split = f"split {config.split}, " if config.splits and len(plans) == 1 else ""
    several = f"{len(plans)} splits, " if len(plans) > 1 else ""
    records = [record for plan in plans for record in plan.records]
    experiences = sum(len(record.steps) for record in records)
    done = [work.node.done for plan in plans for work in plan.train.values()]
    return (
        f"{plural(len(records), 'run')} of {', '.join(config.strategy)} on {backbone.title}, {split}{several}"
        f"{kind}: {plural(experiences, 'experience')}, {plural(len(done), 'training')}, "
        f"{sum(done)} already there"
    )


def plan(config: RunConfig) -> str:
    """Describes what `run` would do, and does nothing; images are read to know whether they have changed.

    Returns:
        Text for the terminal.

    Raises:
        UserError: As `prepare`.
    """
    names = list(dict.fromkeys(name for order in config.orders.values() for name in order))
    names = without_home([*names, *config.test_on])
    if config.data is None and not made(default_root(), names):
        return (
            f"the generated miniatures of {', '.join(names)} are not there yet: run makes them first, in "
            "less than a minute; or make them now with cliqa-bench data make DIR, and add --data DIR"
        )
    plans = prepare_splits(config, " ".join(sys.argv))
    say_notes(plans[0].materials.values())
    missing = [one.missing() for one in plans]
    rows: list[tuple[str, ...]] = [("split", "node", "images", "state")]
    for one, lacks in zip(plans, missing, strict=True):
        rows += [(one.config.split.rpartition("#")[2], *row) for row in _rows(one, lacks)]
    if not config.splits:
        rows = [row[1:] for row in rows]
    table = text_table(rows[1:], rows[0], right={0, 2} if config.splits else {1})
    return "\n".join([_headline(plans), "", table, "", *estimate(plans, missing)])


def _rows(laid_out: Plan, missing: Missing) -> list[tuple[str, ...]]:
    """Returns node, images and state of all work of a plan."""
    rows: list[tuple[str, ...]] = []
    for work in laid_out.train.values():
        state = "done" if work.node.done else "to train"
        rows.append((f"train/{work.node.id}", f"{images_of(laid_out, work):,}", state))
    for gate in laid_out.gates.values():
        state = "done" if gate.node.done else "to fit"
        rows.append((f"gate/{gate.node.id}", f"{size_of(laid_out, gate.dataset, 'train'):,}", state))
    images = sum(size_of(laid_out, work.test, work.subset) for work in laid_out.answers.values())
    todo = len(missing.answers)
    rows.append(("answers/", f"{images:,}", f"{len(laid_out.answers) - todo} done, {todo} to do"))
    return rows
