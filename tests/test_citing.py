"""What to cite for a run: all that it is made of, once, in BibTeX that can be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as recorded

from cliqa_bench.cli.citing import _PARTS, SUITE, bibtex, citing
from cliqa_bench.cli.parser import main
from cliqa_bench.extensions import registry

NET = """
from cliqa_bench.backbones.resnet18 import ResNet18


class Net(ResNet18):
    title = "My net"
    citation = (
        "A. Author, B. O'Brien: Nets & how to throw them. J. Nets 3(1), 7-9, 2026, doi:10.1/x_2", "Ask me.",
    )
"""


def entries(text: str) -> dict[str, dict[str, str]]:
    """Reads BibTeX as `bibtex` writes it: key -> field -> value."""
    found = {}
    for key, body in re.findall(r"^@misc\{([a-z0-9_]+),\n(.*?)\n\}$", text, re.MULTILINE | re.DOTALL):
        assert body.count("{") == body.count("}") and key not in found
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", body, re.MULTILINE))
    assert len(found) == text.count("@")
    return found


def test_without_runs_it_is_the_suite(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite"]) == 0
    text = capsys.readouterr().out
    assert list(entries(text)) == ["cliqa_bench", "zhang2024taskspecific", "lomonaco2021avalanche"]
    assert [line for line in text.splitlines() if line.startswith("%")] == ["% the suite"] * 3
    assert entries(text)["zhang2024taskspecific"] == {
        "author": "W. Zhang and K. Ma and G. Zhai and X. Yang",
        "title": "{Task-specific normalization for continual learning of blind image quality models}",
        "howpublished": "IEEE TIP 33, 1898-1910",
        "year": "2024",
    }
    assert entries(text)["lomonaco2021avalanche"]["author"] == "V. Lomonaco and others"


def test_of_runs_it_is_all_that_they_are_made_of(tmp_path: Path) -> None:
    config: dict[str, Any] = {"config": {"backbone": "resnet18"}}
    recorded.record_tsn(tmp_path, generated=["bid"], sequence=["live", "bid"], order="live,bid", **config)
    recorded.record_single(tmp_path, "jl", generated=False, **config)
    text = citing(tmp_path)
    heads = [line[2:] for line in text.splitlines() if line.startswith("% ")]
    assert heads == [
        "the suite", "the suite, strategy tsn", "the suite", "dataset LIVE", "dataset CSIQ", "dataset BID",
        "dataset CLIVE", "backbone S-CNN",
        "strategy jl: no reference is given", "dataset BID, a generated miniature: no reference is given",
    ]  # fmt: skip
    assert {"sheikh2006a", "larson2010most", "he2016deep"} <= entries(text).keys()
    assert entries(text)["he2016deep"]["doi"] == "10.1109/CVPR.2016.90"


def test_plug_ins_of_a_user_s_own_and_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    own: dict[str, Any] = {"config": {"backbone": "net", "include": [str(tmp_path / "net.py")]}}
    gone: dict[str, Any] = {"config": {"backbone": "lost", "include": [str(tmp_path / "lost.py")]}}
    recorded.record_tsn(tmp_path, **own)
    recorded.record_tsn(tmp_path, seed=1, **gone)
    text = citing(tmp_path)
    assert entries(text)["author2026nets"] == {
        "author": "A. Author and B. O'Brien",
        "title": r"{Nets \& how to throw them}",
        "howpublished": "J. Nets 3(1), 7-9",
        "year": "2026",
        "doi": "10.1/x_2",
    }
    assert entries(text)["askme"] == {"note": "Ask me."}
    assert "% backbone S-CNN, which is not known here: no reference is given" in text
    assert "lost.py" in text


@pytest.mark.parametrize("kind", ["strategies", "datasets", "backbones"])
def test_what_is_built_in_says_where_it_is_from(kind: registry.PluginKind) -> None:
    without = set()
    for name in registry.names(kind):
        citation = registry.load(kind, name).citation
        for text in (citation,) if isinstance(citation, str) else citation:
            if not text:
                without.add(name)
                continue
            parts = _PARTS.fullmatch(text)
            assert parts and 1900 < int(parts["year"]) < 2027, text
            names = parts["authors"].removesuffix(" et al.").split(", ")
            assert all(re.fullmatch(r"([A-Z]\.-?[ ]?)+(da |van den )?[A-Z][\w-]+", name) for name in names), (
                text
            )
    assert without == ({"jl", "sl", "replay"} if kind == "strategies" else set())


def test_keys_differ() -> None:
    keys: set[str] = set()
    found = [bibtex(SUITE[0], keys) for _ in range(3)]
    assert [re.match(r"@misc\{(\w+)", text)[1] for text in found] == [  # type: ignore[index]
        "zhang2024taskspecific", "zhang2024taskspecific2", "zhang2024taskspecific3"
    ]  # fmt: skip
    assert registry.load("strategies", "tsn").citation == SUITE[0], "one entry for both"
