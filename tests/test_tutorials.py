"""Every tutorial of the site, from an empty folder: what it says is typed, and what it shows must come out.

A page is a chain of blocks; `tutorial_steps` says which. Commands of a section "Before you start" or "On the
cluster" are typed elsewhere: of these, the parser must know every flag.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import tutorial_steps
from tutorial_steps import MARGIN, TUTORIALS, Step, same_line, same_lines, shell, steps_of

from cliqa_bench.cli.parser import parse

PAGES = sorted(set(TUTORIALS.glob("*.md")) - {TUTORIALS / "index.md"})
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
ELSEWHERE = ("Before you start", "On the cluster")


def test_the_index_names_all_six() -> None:
    index = (TUTORIALS / "index.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((\w+\.(?:md|ipynb))\)", index)
    assert sorted(linked) == sorted(path.name for path in [*PAGES, *NOTEBOOKS]) and len(linked) == 6
    listed = index.partition("```{toctree}")[2].splitlines()
    assert [Path(name).stem for name in linked] == [line for line in listed if line.isidentifier()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_shows_what_it_types(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    steps = steps_of(text)
    kinds = [step.kind for step in steps]
    assert 40 <= text.count("\n") <= 90
    assert kinds.count("type") >= 2 and kinds.count("see") >= 2
    for before, step in zip([None, *kinds], steps, strict=False):
        assert step.kind != "see" or before == "type", f"output of nothing: {step.text}"
        assert (step.kind == "elsewhere") == (step.section in ELSEWHERE), step.section
        assert step.kind != "see" or step.text.strip() not in ("", "...")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    printed = ""
    for step in steps_of(page.read_text(encoding="utf-8")):
        if step.kind == "write":
            (tmp_path / step.name).write_text(step.text, encoding="utf-8")
        elif step.kind == "type":
            printed = shell(step.text, tmp_path)
        elif step.kind == "see":
            assert same_lines(step.text, printed), f"shown:\n{step.text}\nprinted:\n{printed}"


def commands_typed_elsewhere() -> list[list[str]]:
    """Returns the commands of this package that a page shows and no test can run."""
    steps = [step for page in PAGES for step in steps_of(page.read_text(encoding="utf-8"))]
    texts = [step.text.replace("\\\n", " ") for step in steps if step.kind == "elsewhere"]
    lines = [line for text in texts for line in text.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [
        words[1:] for words in map(shlex.split, (line[2:] for line in lines)) if words[0] == "cliqa-bench"
    ]


@pytest.mark.parametrize("words", commands_typed_elsewhere(), ids=" ".join)
def test_commands_for_a_cluster_are_known_to_the_parser(words: list[str]) -> None:
    command, _ = parse(words)
    assert command == words[0]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_outputs_and_no_traces(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    text = json.dumps(cells)
    assert sum(bool(cell["outputs"]) for cell in code) >= len(code) - 2
    assert all(cell["execution_count"] is None and not cell["metadata"] for cell in code)
    assert '"ename"' not in text and not re.search(r"[\"'\s](/tmp|/home|/root|/work|/Users)/", text)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_its_outputs_again(notebook: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="there is no nbformat (the extra [tutorials])")
    pytest.importorskip("nbclient", reason="there is no nbclient (the extra [tutorials])")
    pytest.importorskip("ipykernel", reason="there is no ipykernel (the extra [tutorials])")
    stored = nbformat.read(notebook, as_version=4)
    fresh = tutorial_steps.run_notebook(notebook, tmp_path)
    for cell, again in zip(stored.cells, fresh.cells, strict=True):
        if cell.cell_type == "code":
            shown, printed = (tutorial_steps.printed_by(one) for one in (cell, again))
            assert same_lines(shown, printed), f"{cell.source}\nstored:\n{shown}\nprinted:\n{printed}"
            assert pictures(cell) == pictures(again)


def pictures(cell: object) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------ the rules themselves


def test_blocks_are_read_in_their_order() -> None:
    blocks = [
        "# A", "`a.py`:", "```python", "x", "```", "text", "```bash", "python a.py", "```",
        "```text", "out", "```", "## On the cluster", "```console", "$ sbatch", "```",
        "```{toctree}", "b", "```", "",
    ]  # fmt: skip
    page = "\n".join(blocks)
    assert steps_of(page) == [
        Step("write", "x\n", "a.py", "A"),
        Step("type", "python a.py\n", "", "A"),
        Step("see", "out\n", "", "A"),
        Step("elsewhere", "$ sbatch\n", "", "On the cluster"),
    ]
    with pytest.raises(ValueError, match="'python' without the name"):
        steps_of("# A\n```python\nx\n```\n")


def test_a_failing_command_fails_and_its_variables_must_exist(tmp_path: Path) -> None:
    assert shell("echo a; pwd", tmp_path).splitlines() == ["a", str(tmp_path)]
    for wrong in ("false; true", "false | cat", "echo $nowhere_set"):
        with pytest.raises(AssertionError, match="ended with"):
            shell(wrong, tmp_path)


def test_only_decimals_hashes_and_blanks_may_differ() -> None:
    near, far = 0.5 + 0.9 * MARGIN, 0.5 + 1.1 * MARGIN
    assert same_line("SRCC   0.500 of a  ", f"SRCC {near:.4f} of a")
    assert same_line("| **0.500** |---:|", "| 0.500 |-----:|")
    assert same_line("run tsn-I-1b404cb5caf9", "run tsn-I-0000cb5cafff")
    different = [f"SRCC {far:.4f} of a", "PLCC 0.5 of a", "SRCC 0.5 of b", "SRCC -0.5 of a"]
    different += ["SRCC 0.5", "SRCC 1 of a", "SRCC 0.5 of a b"]
    assert not any(same_line("SRCC 0.500 of a", line) for line in different)
    assert not same_line("2 runs", "3 runs")


def test_dots_stand_for_lines_and_nothing_else_does() -> None:
    printed = "a\nb\n\nc\n"
    for shown in ("a\nb\nc", "...\nc", "a\n...", "...\nb\n...", "a\n...\nc", "a\nb\nc\n..."):
        assert same_lines(shown, printed), shown
    for shown in ("", "a", "b\n...", "...\nb", "a\nc", "a\n...\nb", "c\n...\na"):
        assert not same_lines(shown, printed), shown
