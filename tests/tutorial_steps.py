"""The tutorials of the site as steps: what is typed, which files are written, what is to be seen.

`PYTHONPATH=. python tests/tutorial_steps.py` runs the notebook and stores its outputs anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
MARGIN = 0.05
"""By how much a decimal may differ: three times the 0.016 that the README's table does between processors."""

_BLOCK = re.compile(
    r"(?:^`(?P<name>[\w.]+)`:\n)?^```(?P<tag>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d+")
_ID = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")

Kind = Literal["type", "write", "see", "elsewhere"]


@dataclass(frozen=True)
class Step:
    """A block of a page.

    Attributes:
        kind: Commands to type, a file to write, what is seen after the commands, or what is typed elsewhere.
        text: The block.
        name: Of the file.
        section: The heading above it.
    """

    kind: Kind
    text: str
    name: str
    section: str


def steps_of(page: str) -> list[Step]:
    """Reads the blocks of a page.

    A block after a line "`NAME`:" is a file; else "bash" is typed, "text" is seen, and "console" is typed
    elsewhere. Directives of MyST ("{toctree}") are none.

    Raises:
        ValueError: If a block is of no such kind.
    """
    steps = []
    for block in _BLOCK.finditer(page):
        name, tag = block["name"] or "", block["tag"]
        if tag.startswith("{"):
            continue
        kinds: dict[str, Kind] = {"bash": "type", "text": "see", "console": "elsewhere"}
        kind: Kind | None = "write" if name else kinds.get(tag)
        if kind is None:
            raise ValueError(f"a block of {tag!r} without the name of a file: {block['text'][:60]!r}")
        section = re.findall(r"^#+ (.+)$", page[: block.start()], re.MULTILINE)[-1]
        steps.append(Step(kind, block["text"], name, section))
    return steps


def shell(commands: str, folder: Path) -> str:
    """Runs commands as the pages' reader does, and returns what they print to standard output.

    Raises:
        AssertionError: If a command fails; it shows what they printed.
    """
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{commands}"],
        cwd=folder, env=reader_environment(), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def reader_environment() -> dict[str, str]:
    """Returns the environment, in which `python` and `cliqa-bench` are those that run the tests."""
    programs = str(Path(sys.executable).parent)
    # a backend chosen for tests would keep figures out of a notebook
    usual = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**usual, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CLIQA_PROGRESS": "none"}


def same_lines(shown: str, printed: str) -> bool:
    """Tells whether a page shows what was printed; its line "..." stands for any number of lines."""
    lines = [[line for line in text.splitlines() if line.strip()] for text in (shown, printed)]
    return _same(*lines)


def _same(shown: list[str], printed: list[str]) -> bool:
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(_same(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and same_line(shown[0], printed[0]) and _same(shown[1:], printed[1:])


def same_line(shown: str, printed: str) -> bool:
    """Compares two lines: words and whole numbers exactly, decimals within `MARGIN`, blanks and ids not."""
    if _fixed(shown) != _fixed(printed):
        return False
    pairs = zip(_DECIMAL.findall(shown), _DECIMAL.findall(printed), strict=True)
    return all(abs(float(one) - float(other)) <= MARGIN for one, other in pairs)


def _fixed(line: str) -> list[str]:
    """Returns the words of a line; decimals and hashes are alike, as are lines of a table, however long."""
    line = _ID.sub("ID", _DECIMAL.sub("DECIMAL", line.replace("*", "")))
    return re.sub(r"-{2,}", "--", line).split()


def printed_by(cell: Any) -> str:
    """Returns the text below a cell of a notebook: what it prints to standard output, and what it returns."""
    # a stream comes in pieces, which begin anywhere in a line
    streams = "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
    returned = (output.data["text/plain"] for output in cell.outputs if output.output_type != "stream")
    return "\n".join([streams, *returned])


def run_notebook(path: Path, folder: Path) -> Any:
    """Runs a notebook in a folder and returns it, with its outputs and without counters and times."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=300,
        coalesce_streams=True,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=reader_environment())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    import nbformat

    for page in sorted(TUTORIALS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as empty:
            nbformat.write(run_notebook(page, Path(empty)), page)
