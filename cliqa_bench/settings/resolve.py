"""From flags and a YAML file to a `RunConfig`: here names, types, presets and defaults are settled.

Flags and keys of the file have the same names; `cliqa_bench.cli.parser` hands them over as one mapping.
"""

from __future__ import annotations

import json
import math
import os
import re
from argparse import ArgumentError
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from operator import itemgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from cliqa_bench import errors
from cliqa_bench.benchmarks import suites
from cliqa_bench.benchmarks.splits import OFFICIAL, has_aspects
from cliqa_bench.config import (
    DASK,
    LOCAL,
    MAX_MEGAPIXELS,
    PRESET_BACKBONE,
    PRESETS,
    SLURM,
    LogName,
    PresetName,
    RunConfig,
    Training,
    default_of,
)
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry, user_code
from cliqa_bench.order_designs import is_design
from cliqa_bench.part_names import UNLABELLED, base_of
from cliqa_bench.paths import user_path
from cliqa_bench.progress import say
from cliqa_bench.settings import paper_runs
from cliqa_bench.system.hardware import Precision, quickest_precision

_MOST = 2**31 - 1
"""Largest whole number of a setting; what is larger fits into no index of a network."""

_MOST_PROCESSES = 4096

MOST_SPLITS = 1000
"""Splits in one run; more are a slip of the finger."""

_MOST_MEGAPIXELS = 10_000.0
"""At 30 GB decoded; what is larger is a slip of the finger."""

Params = dict[str, dict[str, Any]]


def words(value: str | Iterable[Any] | None) -> list[str]:
    """Splits "a, b" at its commas; a list from a YAML file stays a list."""
    parts = value.split(",") if isinstance(value, str) else [str(part) for part in value or ()]
    return [part.strip() for part in parts if part.strip()]


def typed_fields(cls: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks values against the fields of a dataclass and gives them the fields' types.

    Args:
        cls: The dataclass.
        values: Field name -> value, as YAML or as the text of a flag ("16", "[4, 8]").
        where: What the keys belong to, in an error message ("training", "tsn").

    Returns:
        Field name -> value of the field's type.

    Raises:
        UserError: If a key is not a field, or a value is not of its type.
    """
    known = [field.name for field in fields(cls) if field.init]
    hints = get_type_hints(cls)
    typed = {}
    for key, value in values.items():
        if key not in known:
            raise errors.unknown(f"key of {where}", str(key), known)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{key}", type=hints[key])
        try:
            if value is None and type(None) not in get_args(hints[key]):  # jsonargparse lets any be null
                raise ValueError
            typed[key] = parser.parse_object({key: _listed(hints[key], value)})[key]
        except (ArgumentError, OverflowError, RecursionError, ValueError) as error:
            raise UserError(f"{where}.{key} must be {_spoken(hints[key])}, not {value!r:.200}") from error
        members = _members(typed[key])
        if any(isinstance(n, float) and not math.isfinite(n) for n in members):
            raise UserError(f"{where}.{key} must be a finite number, not {value!r:.200}")
        if any(isinstance(n, int) and abs(n) > _MOST for n in members):
            raise UserError(f"{where}.{key} must be at most {_MOST}, not {value!r:.200}")
    return typed


def _members(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _listed(hint: Any, value: Any) -> Any:
    """Lets `4` and `4,8` stand for a list where one is needed."""
    if get_origin(hint) is not tuple or isinstance(value, list | tuple) or str(value).startswith("["):
        return value
    return f"[{value}]"


def _spoken(hint: Any) -> str:
    """Says what a field takes, in words; an alias is what it stands for."""
    if get_origin(hint) is Literal:
        return " | ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(_spoken, get_args(hint)))
    return _KINDS[hint] if hint in _KINDS else str(getattr(hint, "__name__", hint))


_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "None",
    tuple[int, ...]: "a list of whole numbers, such as [4, 8]",
}
"""Type of a field -> what it takes, in words."""


def data_root(given: str | None) -> Path | None:
    """Returns the folder of the real datasets: the one given, else `$CLIQA_DATA`, else None.

    Raises:
        UserError: If it is not a folder.
    """
    named = given or os.environ.get("CLIQA_DATA")
    if not named:
        return None
    root = user_path(named)
    if not root.is_dir():
        source = "--data" if given else "the environment's CLIQA_DATA"
        raise UserError(f"no folder {root} ({source}); give the folder that holds the datasets")
    return root


def resolve(settings: Mapping[str, Any]) -> RunConfig:
    """Settles the configuration of a run.

    Args:
        settings: The flags of `run` under their long names, None where not given; `set` holds
            "KEY=VALUE" texts that override `training` and `params`.

    Returns:
        The configuration, every name and type in it checked.

    Raises:
        UserError: If something is missing, unknown, or of the wrong type.
    """
    include(settings.get("include"))
    recall_tables(settings.get("tables") or ())
    given, gather = settings.get, errors.Gather()
    ordered = gather(_orders, given("orders") or "I")
    orders = gather(itemgetter(0), ordered)
    data = gather(data_root, given("data"))
    preset = gather(_preset, given("preset"), data, orders)
    strategy = gather(_strategies, given("strategy"))
    assigned = gather(_assignments, settings, strategy)
    resolved: dict[str, Any] = {
        "backbone": gather(
            registry.check, "backbones", given("backbone") or gather(PRESET_BACKBONE.get, preset)
        ),
        "weights": gather(_weights, given("weights")),
        "seeds": gather(_seeds, given("seeds")),
        "split": gather(_splits, given("split"), given("splits")),
        "training": gather(_training, preset, settings, assigned),
        "device": gather(device_name, given("device")),
        "test_on": gather(_test_on, given("test_on"), orders),
        "jobs": gather(_jobs, given("jobs")),
        "threads": gather(_threads, given("threads")),
        "log": gather(_log, given("log")),
        "max_megapixels": gather(megapixels, given("max_megapixels")),
        "executor": gather(_executor, given("executor")),
    }
    gather.refuse()
    split, splits = resolved.pop("split")
    if words(given("strategy")) == ["all"]:
        strategy = _that_can_learn(strategy, assigned[1], orders, data, split)
        strategy = _that_fit(strategy, assigned[1], resolved["backbone"])
    return RunConfig(
        strategy=strategy,
        orders=orders,
        data=data,
        split=split,
        splits=splits,
        preset=preset,
        params={name: params for name, params in assigned[1].items() if name in strategy},
        out=user_path(given("out") or "runs"),
        include=[str(file.path) for file in user_code.included().values()],
        tables=_tables_of([*orders.values(), resolved["test_on"]]),
        srgb=bool(given("srgb")),
        deterministic=bool(given("deterministic")),
        orders_as=ordered[1],
        **resolved,
    )


def paper_configs(settings: Mapping[str, Any]) -> list[RunConfig]:
    """Settles the runs behind the paper's tables; see `cliqa_bench.settings.paper_runs`.

    Args:
        settings: As in `resolve`; `backbones` may name several.

    Raises:
        UserError: As `resolve`.
    """
    base = resolve(
        {
            **settings,
            "strategy": "all",
            "orders": "all",
            "test_on": None,
            "seeds": settings.get("seeds") or "0",
        }
    )
    test_on = words(settings.get("test_on")) or list(paper_runs.FURTHER)
    seeds = base.seeds if settings.get("seeds") is not None else paper_runs.SEEDS[base.preset]
    named = words(settings.get("backbones")) or paper_runs.BACKBONES[base.preset]
    backbones = [registry.check("backbones", name) for name in named]
    tests = [] if test_on == ["none"] else _test_on(test_on, base.orders)
    tables = _tables_of([*base.orders.values(), tests])
    base = replace(base, seeds=seeds, test_on=tests, tables=tables)
    # the package's weights need no substitute
    return [
        replace(config, weights=None) if config.backbone == "scnn" and config.weights == "random" else config
        for config in paper_runs.runs(base, base.strategy, base.orders, backbones)
    ]


def include(files: str | Iterable[str] | None) -> None:
    """Imports files of the user's, named with commas between, or in a list.

    Raises:
        UserError: If one cannot be imported, or defines none of what a run is made of.
    """
    for file in words(files):
        name = user_code.include(file)
        if not registry.kinds_of(name):
            raise UserError(f"{file} defines no strategy, dataset or backbone")


def recall_tables(sources: Iterable[str]) -> None:
    """Makes tables of the user's known by the names that a configuration has for them.

    Raises:
        UserError: If one cannot be read any more.
    """
    for source in sources:
        registry.check("datasets", source)


def _tables_of(named: Iterable[Sequence[str]]) -> list[str]:
    """Returns the tables among the datasets that are named, each once."""
    every = dict.fromkeys(name for names in named for name in names)
    found = (getattr(suites.dataset_class(name), "source", None) for name in every)
    return list(dict.fromkeys(source for source in found if source))  # that of a part is the whole's


def config_dict(config: RunConfig) -> dict[str, Any]:
    """Returns a configuration as JSON with the keys of a `--config` file: reading it repeats the run."""
    body = asdict(config)
    body["orders"] = body.pop("orders_as") or list(config.orders)
    body["data"] = None if config.data is None else str(config.data)
    if config.splits:  # the whole that this one is of
        body["split"] = config.split_folder or None
    body["out"] = str(config.out)
    del body["executor"]  # where a run was done is not part of its results
    plain: dict[str, Any] = json.loads(json.dumps(body, allow_nan=False))  # tuples become lists
    return plain


def _strategies(value: str | Sequence[str] | None) -> list[str]:
    known = registry.names("strategies")
    named = words(value)
    if not named:
        raise UserError(f"which strategy? give --strategy NAME; choose from: {', '.join(known)}, all")
    if named == ["all"]:
        return known
    return list(dict.fromkeys(registry.check("strategies", name) for name in named))


def _that_can_learn(
    strategies: list[str], params: Params, orders: Mapping[str, list[str]], data: Path | None, split: str
) -> list[str]:
    """Leaves out of all strategies those that learn scenes and distortions, if these are not known."""
    names = list(dict.fromkeys(base_of(name) for order in orders.values() for name in order))
    known = all(suites.dataset_class(name).home is None for name in names)
    if known and data is not None:
        known = all(has_aspects(split, dataset) for dataset in suites.find_datasets(data, names).values())
    reading = [
        name for name in strategies if registry.load("strategies", name)(**params.get(name, {})).reads_aspects
    ]
    if known or not reading:
        return strategies
    say(f"--strategy all leaves out {', '.join(reading)}: no scene and distortion labels; see docs/liqe.md")
    return [name for name in strategies if name not in reading]


def _that_fit(strategies: list[str], params: Params, name: str) -> list[str]:
    """Leaves out of all strategies those that cannot work with the backbone."""
    backbone, fit = registry.load("backbones", name), []
    for strategy in strategies:
        try:
            registry.load("strategies", strategy)(**params.get(strategy, {})).check_backbone(backbone)
        except UserError as error:
            say(f"--strategy all leaves out {strategy}: {error}")
        else:
            fit.append(strategy)
    return fit


def _orders(value: str | Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Returns the orders, and how they were asked for if that is shorter: no run record lists 720."""
    if not isinstance(value, str):
        # a list of a YAML file: labels and whole sequences, or the datasets of one sequence
        value = (";" if any(map(suites.is_whole, value)) else ",").join(value)
    orders: dict[str, list[str]] = {}
    asked: list[str] = []
    for part in value.split(";"):
        found = suites.parse_orders(part)
        orders.update(found)
        asked += [suites.spelt_design(part)] if is_design(part) else found
    return orders, asked if len(asked) < len(orders) else []


def _preset(value: str | None, data: Path | None, orders: Mapping[str, list[str]]) -> PresetName:
    if value is None:
        needed = dict.fromkeys(name for sequence in orders.values() for name in sequence)
        if data is None and any(suites.dataset_class(name).home is None for name in needed):
            return "quick"  # there are miniatures among them
        if data is None:
            return "paper"
        found = suites.find_datasets(data, list(needed)).values()
        return "quick" if all(dataset.generated for dataset in found) else "paper"
    for preset in PRESETS:
        if value == preset:
            return preset
    raise errors.unknown("preset", value, PRESETS)


def _weights(value: str | None) -> str | None:
    if value is None or value == "random":
        return value
    path = user_path(value)
    if not path.is_file():
        raise UserError(f"no file {path} (--weights); give a file of pre-trained weights, or 'random'")
    return str(path)


def _seeds(value: str | int | Sequence[int] | None) -> list[int]:
    named = words(str(value) if isinstance(value, int) else value) or ["0"]
    if not all(re.fullmatch("[0-9]{1,9}", seed) for seed in named):
        raise UserError(
            f"--seeds must be whole numbers below 10^9 with commas between, such as 0,1,2; not {value!r:.200}"
        )
    return list(dict.fromkeys(int(seed) for seed in named))


def _split(value: str | int | None) -> str:
    text = "1" if value is None else str(value)
    if re.fullmatch(f"[1-9][0-9]{{0,8}}|{OFFICIAL}", text):
        return text
    folder, mark, number = text.partition("#")  # PATH#3: the third of several published splits
    path = user_path(folder)
    if not path.is_dir():
        raise UserError(f"no folder {path} (--split); give a number from 1, or a folder of split files")
    return f"{path}{mark}{number}"


def _splits(split: str | int | None, several: str | int | Sequence[Any] | None) -> tuple[str, list[int]]:
    """Returns the first split, and the numbers of all of them if `--splits` asks for several."""
    if several is None or several in ([], ()):  # as a file states it for a single one
        return _split(split), []
    numbers = page_numbers(several)
    if split is None:
        return str(numbers[0]), numbers
    folder = _split(split)
    if re.fullmatch(f"[0-9]+|{OFFICIAL}", folder) or "#" in folder:
        raise UserError(
            f"--split {split} is a single split and cannot be combined with --splits; leave one out "
            "(--split FOLDER says where the files of several splits are)"
        )
    return f"{folder}#{numbers[0]}", numbers


def page_numbers(value: str | int | Sequence[Any]) -> list[int]:
    """Returns the numbers that `1,3,5-7` names, as pages of a printer, each once.

    Raises:
        UserError: If it is not such a list, a range runs backwards, or there are more than `MOST_SPLITS`.
    """
    text = ",".join(words(str(value) if isinstance(value, int) else value))
    found: dict[int, None] = {}
    for part in text.split(","):
        ends = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", part.replace(" ", ""))
        if ends is None:
            raise UserError(
                f"--splits must be numbers and ranges with commas between, such as 1-10 or 1,3,5-7; not "
                f"{text!r:.200}"
            )
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if first < 1:
            raise UserError(f"--splits {text:.200}: splits are numbered from 1")
        if last < first:
            raise UserError(f"--splits {text:.200}: {part} runs backwards; write {last}-{first}")
        if len(found) + last - first >= MOST_SPLITS:
            raise UserError(f"--splits {text:.200}: at most {MOST_SPLITS} splits go into one run")
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def device_name(value: str | None) -> str:
    """Returns the name of a device, "auto" where none was given.

    Raises:
        UserError: If it is not the name of one.
    """
    device = value or "auto"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", device):
        raise errors.unknown("device", device, ["auto", "cpu", "cuda", "cuda:1", "mps"])
    return device


def _test_on(value: str | Sequence[str] | None, orders: Mapping[str, list[str]]) -> list[str]:
    named = list(dict.fromkeys(suites.dataset_name(word) for word in words(value)))
    for label, order in orders.items():
        for name in named:
            if name in order:
                raise UserError(f"--test-on {name}: order {label} learns it and so tests on it already")
            learned = next((other for other in order if base_of(other) == base_of(name)), None)
            if learned is not None:
                raise UserError(
                    f"--test-on {name}: order {label} learns from {learned}, which shares images with it; "
                    "test on another dataset"
                )
    for name in named:
        part = suites.dataset_class(name).part
        if part is not None and (part.blocks > 1 or part.unlabelled):
            raise UserError(
                f"--test-on {name}: all images of a test set are tested, so blocks and {UNLABELLED} mean "
                f"nothing; write {part._replace(block=1, blocks=1, unlabelled=False).name}"
            )
    return named


def chosen_precision(name: str, device: str) -> Precision:
    """Turns "auto" into the device's quickest precision, and checks any other name.

    Raises:
        UserError: If there is no such precision.
    """
    known: tuple[Precision, ...] = get_args(Precision)
    for precision in known:
        if name == precision:
            return precision
    if name != "auto":
        raise errors.unknown("precision", name, [*known, "auto"])
    return quickest_precision(device)


def _training(
    preset: PresetName, settings: Mapping[str, Any], assigned: tuple[Mapping[str, Any], Params]
) -> Training:
    """Returns the preset's protocol with the precision and the fields that were asked for."""
    protocol, wanted, changed = PRESETS[preset], settings.get("precision"), assigned[0]
    if wanted is not None:
        precision = chosen_precision(wanted, device_name(settings.get("device")))
        protocol = replace(protocol, precision=precision)
    return replace(protocol, **typed_fields(Training, changed, "training"))


def _jobs(value: int | str | None) -> int | Literal["auto"]:
    if value is None or value == "auto":
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_PROCESSES:
        raise UserError(
            f"--jobs must be a whole number from 1 to {_MOST_PROCESSES}, or auto; not {value!r:.200}"
        )
    return value


def _threads(value: int | None) -> int | None:
    if value is not None and not 1 <= value <= _MOST_PROCESSES:
        raise UserError(f"--threads must be from 1 to {_MOST_PROCESSES}, not {value!r:.200}")
    return value


def megapixels(value: float | None) -> float:
    """Returns the largest image that is decoded, in 10^6 pixels; `MAX_MEGAPIXELS` where none is given.

    Raises:
        UserError: If it is not above 0 and at most `_MOST_MEGAPIXELS`.
    """
    if value is None:
        return MAX_MEGAPIXELS
    if not 0 < value <= _MOST_MEGAPIXELS:
        raise UserError(f"--max-megapixels must be above 0 and at most {_MOST_MEGAPIXELS:g}, not {value}")
    return float(value)


def _log(value: str | None) -> LogName | None:
    known: tuple[LogName, ...] = get_args(LogName)
    for name in known:
        if value == name:
            return name
    if value is not None:
        raise errors.unknown("logger (--log)", value, known)
    return None


def _executor(value: str | None) -> str:
    name = value or LOCAL
    if name not in (LOCAL, DASK, SLURM) and not re.fullmatch(r"(tcp|tls|ws|wss)://[^\s/]+:[0-9]{1,5}", name):
        raise errors.unknown("executor", name, [LOCAL, DASK, SLURM, "tcp://HOST:PORT"])
    return name


def _assignments(settings: Mapping[str, Any], strategy: list[str]) -> tuple[dict[str, Any], Params]:
    """Merges `training` and `params` with `set`; keeps the params of the chosen strategies, typed."""
    known = registry.names("strategies")
    training = dict(settings.get("training") or {})
    params = {name: dict(values or {}) for name, values in (settings.get("params") or {}).items()}
    for name in params:
        registry.check("strategies", name)
    assignments = settings.get("set") or []
    for text in assignments if isinstance(assignments, list) else [assignments]:
        target, dot, assignment = str(text).partition(".")
        key, equals, value = assignment.partition("=")
        if not (dot and equals and key):
            raise UserError(f"--set takes STRATEGY.KEY=VALUE or training.KEY=VALUE, not {text!r}")
        if target != "training" and target not in strategy:
            if target in known:
                raise UserError(f"--set {text}: the strategy {target!r} is not run; choose from: {strategy}")
            raise errors.unknown("target of --set", target, [*strategy, "training"])
        (training if target == "training" else params.setdefault(target, {}))[key] = value
    chosen = {name: _changed(name, params.get(name, {})) for name in strategy}
    return training, {name: values for name, values in chosen.items() if values}


def _changed(strategy: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the hyper-parameters that differ from the strategy's defaults, typed."""
    cls = registry.load("strategies", strategy)
    typed = typed_fields(cls, values, strategy)
    defaults = {field.name: default_of(field) for field in fields(cls) if field.init}
    for key, default in defaults.items():
        if default is MISSING and key not in typed:
            raise UserError(f"{strategy}.{key} has no default; give it: --set {strategy}.{key}=VALUE")
    chosen = cls(**typed)
    return {key: getattr(chosen, key) for key in typed if getattr(chosen, key) != defaults[key]}
