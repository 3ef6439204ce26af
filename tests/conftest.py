"""What tests share: reference material, small generated data, and a cache folder of their own."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cliqa_bench.extensions import registry, user_code

if TYPE_CHECKING:
    from grown_models import Grown

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: said before PyTorch comes and takes all cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

from cliqa_bench.system.avalanche_import import importing_avalanche  # what is above must come first

with importing_avalanche():  # several processes of pytest import it at once, in the tests' own modules
    pass

ROOT = Path(__file__).resolve().parents[1]
SCALE = 0.25
"""Size of the generated data that tests read, relative to the default."""


def pytest_configure() -> None:
    """Collects no garbage until the tests are collected."""
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Spares the collector what stays to the end, some 700,000 objects: it took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Points CLIQA_CACHE to a folder of the session and hides CLIQA_DATA: no test touches the user's own."""
    cache = _of_the_session(tmp_path_factory, "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIQA_CACHE", str(cache))
        patch.delenv("CLIQA_DATA", raising=False)
        yield cache


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """Fails a test that leaves a signal ignored or blocked: programs that later tests start inherit that."""
    before = _signals()
    yield
    assert _signals() == before, "the test changed how signals are handled"


@pytest.fixture(autouse=True)
def files_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets the strategies, datasets and backbones that a test included: later tests list what there is."""
    monkeypatch.setattr(user_code, "_files", dict(user_code._files))
    monkeypatch.setattr(registry, "_sourced", dict(registry._sourced))


def _signals() -> tuple[object, ...]:
    handled = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    return (*handled, signal.pthread_sigmask(signal.SIG_BLOCK, ()))


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Leaves the figures out of reports, for a module whose runs are about something else: they take long."""
    from cliqa_bench.reports.figures import gallery

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "PICTURES", ())
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Computes on one thread, for a module whose pictures of 32 x 32 pixels are not worth a second."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Returns the folder of reference material beside the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip(f"no reference material in {folder}")
    return folder


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the six generated datasets, made once a session; read it, never write to it.

    `wrong_science.py` names one in CLIQA_TEST_MINIATURES, which all of its sessions share.
    """
    from cliqa_bench.benchmarks.generated.make import make_miniatures

    given = os.environ.get("CLIQA_TEST_MINIATURES")
    root = Path(given) if given else _of_the_session(tmp_path_factory, "miniatures")
    make_miniatures(root, SCALE, seed=0)
    return root


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Starts a headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="there is no playwright (the extra [browser])")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium on the PATH")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """Returns a small model, one dataset added to it, and then another; write beside its files, not over."""
    from grown_models import make_grown

    return make_grown(tmp_path_factory.mktemp("grown"))


def _of_the_session(factory: pytest.TempPathFactory, name: str) -> Path:
    """Returns a folder that all processes of pytest share: what fills it has locks."""
    several = "PYTEST_XDIST_WORKER" in os.environ
    folder = (factory.getbasetemp().parent if several else factory.getbasetemp()) / name
    folder.mkdir(exist_ok=True)
    return folder
