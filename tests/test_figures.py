"""Figures: nothing clipped, the same bytes again, numbers where they belong, and honest about the data."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import recorded_runs as recorded
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from cliqa_bench.errors import UserError
from cliqa_bench.reports.figures import gallery, matrices, orders, scatter
from cliqa_bench.reports.figures.scale import draw_scale, gated_run, shown_images
from cliqa_bench.reports.figures.scatter import best_method
from cliqa_bench.reports.figures.style import method_styles, plain
from cliqa_bench.reports.rows import GENERATED, Tidy, group_records, tidy
from cliqa_bench.results.nodes import write_json
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord, read_records, write_record

HOSTILE = r"a_b $x^ {y} <b>&\frac \$1$"


def record_pictures(out: Path, record: RunRecord, count: int = 3) -> RunRecord:
    """Adds pictures of the first images of every test set to a run."""
    for k, test in enumerate(record.sequence):
        folder = out / "pictures" / f"{test}-1"
        folder.mkdir(parents=True, exist_ok=True)
        kept = []
        for i in range(count):
            Image.new("RGB", (40 + 30 * k, 50), (80 * i, 40 * k, 120)).save(folder / f"{i}.png")
            kept.append({"file": f"{i}.png", "key": f"{test}/{i:03d}.png"})
        write_json(folder / "keys.json", kept)
        write_json(folder / "done.json", {})
    facts = {**record.facts, "pictures": {test: f"{test}-1" for test in record.sequence}}
    (out / "runs" / f"{record.id}.json").unlink()
    shown = replace(record, facts=facts)
    write_record(out, shown)
    return shown


def numbers_of(out: Path) -> tuple[Tidy, AnswerReader]:
    reader = AnswerReader(out)
    return tidy(group_records(read_records(out))[0], reader), reader


DRAWN = [picture.name for picture in gallery.PICTURES if picture.name != "fig_ssiqa"]
"""What these runs fill; a transfer fills the other, in tests/test_ssiqa_tables.py."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four datasets, three strategies, two orders and seeds."""
    out = tmp_path_factory.mktemp("small")
    recorded.record_golden(out)
    record_pictures(out, recorded.record_tsn(out))
    return out


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six datasets, three backbones, a dozen methods, and unlikely names."""
    out = tmp_path_factory.mktemp("crowded")
    names = ["live", "csiq", "bid", "clive", "koniq10k", "kadid10k"]
    titles = ["LIVE", "CSIQ", "BID", "CLIVE", "KonIQ-10K", HOSTILE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "TITLES", dict(zip(names, titles, strict=True)))
        plain_run = record_pictures(out, recorded.record_tsn(out, sequence=names, images=15))
    for backbone in ("S-CNN", "ResNet-18", "Two-Stream DNN"):
        for variant in ("", "stages=(1, 2, 3, 4), tau=16.0, centroids=64"):
            write_record(out, replace(plain_run, backbone=backbone, variant=variant))
    write_record(out, replace(plain_run, rows={"gate": HOSTILE}, variant="x"))
    return out


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Figure]]:
    """Keeps the figures instead of writing them."""
    found: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        figure.draw_without_rendering()
        found[name] = figure
        return [folder / name]

    for module in ("curves", "matrices", "scatter", "orders", "scale"):
        monkeypatch.setattr(f"cliqa_bench.reports.figures.{module}.save", keep)
    yield found


def texts(figure: Figure) -> list[Text]:
    """Returns the texts that are drawn: not those of hidden axes, nor of ticks outside of an axis' limits."""
    undrawn: set[Text] = set()
    for axes in figure.axes:
        if not axes.get_visible():
            undrawn |= {text for text in axes.findobj(Text) if isinstance(text, Text)}
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.majorTicks, *axis.minorTicks]:
                if not low <= tick.get_loc() <= high or not axis.get_visible() or not axes.axison:
                    undrawn |= {tick.label1, tick.label2}
    found = (text for text in figure.findobj(Text) if isinstance(text, Text))
    return [text for text in found if text.get_visible() and text.get_text() and text not in undrawn]


@pytest.mark.parametrize("which", ["small", pytest.param("crowded", marks=pytest.mark.slow)])
def test_no_text_leaves_the_figure(
    which: str, request: pytest.FixtureRequest, kept: dict[str, Figure], tmp_path: Path
) -> None:
    numbers, reader = numbers_of(request.getfixturevalue(which))
    gallery.draw_all(numbers, reader, tmp_path)
    assert sorted(kept) == sorted(DRAWN)
    for name, figure in kept.items():
        page = figure.bbox
        for text in texts(figure):
            box = text.get_window_extent()
            inside = box.x0 > -1 and box.y0 > -1 and box.x1 < page.width + 1 and box.y1 < page.height + 1
            assert inside, (name, text.get_text(), box, page)


@pytest.fixture(scope="module")
def drawn(small: Path, tmp_path_factory: pytest.TempPathFactory) -> list[gallery.Drawn]:
    return gallery.draw_all(*numbers_of(small), tmp_path_factory.mktemp("figures"))


def test_code_that_draws_in_another_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("figures", "tables"):
        (tmp_path / name).mkdir()
    (tmp_path / "figures" / "gallery.py").write_text("")
    monkeypatch.setattr(gallery, "__file__", str(tmp_path / "figures" / "gallery.py"))
    before = gallery._code.__wrapped__()
    (tmp_path / "tables" / "cost.py").write_text("")
    assert len(gallery._code.__wrapped__()) == len(before) + 1


@pytest.mark.slow
def test_the_same_numbers_are_the_same_bytes(small: Path, drawn: list[gallery.Drawn], tmp_path: Path) -> None:
    assert [[p.name for p in d.files] for d in drawn] == [
        [f"{name}.{kind}" for kind in ("svg", "pdf", "png")] for name in DRAWN
    ]
    files = {path.name for figure in drawn for path in figure.files}
    assert files == {name for name in gallery.FILES if not name.startswith("fig_ssiqa.")}
    again = gallery.draw_all(*numbers_of(small), tmp_path)
    for one, other in zip(drawn, again, strict=True):
        assert [p.read_bytes() for p in one.files] == [p.read_bytes() for p in other.files]


@pytest.mark.slow
def test_generated_data_is_said_and_real_data_is_not(drawn: list[gallery.Drawn], tmp_path: Path) -> None:
    for figure in drawn:
        assert GENERATED in figure.files[0].read_text()
        assert figure.caption.endswith("not comparable with published numbers.")
    recorded.record_tsn(tmp_path / "real", generated=False)
    numbers, reader = numbers_of(tmp_path / "real")
    for picture in (p for p in gallery.PICTURES if p.name in ("fig_4", "fig_orders")):
        svg = picture.draw(numbers, reader, tmp_path / "figures")[0].read_text()
        assert "iniature" not in picture.caption(numbers) + svg


@pytest.mark.slow
def test_every_letter_of_an_svg_is_in_its_fonts(drawn: list[gallery.Drawn]) -> None:
    for figure in drawn:
        svg = figure.files[0].read_text(encoding="utf-8")
        fonts = re.findall(r"font-style: (\w+); src: url\(data:font/woff;base64,([^)]+)\)", svg)
        # matplotlib before 3.9 wrote "font: oblique 8px ..."
        slanted = re.search(r"font(-style)?: oblique", svg.partition("</style>")[2])
        assert ("oblique" in dict(fonts)) == bool(slanted)
        used = set("".join(t for t in ElementTree.fromstring(svg).itertext() if "@font-face" not in t))
        for _, data in fonts:
            font = TTFont(io.BytesIO(base64.b64decode(data)))
            assert {c for c in used if not c.isspace()} <= {chr(code) for code in font.getBestCmap()}
            assert len(font.getGlyphOrder()) < 120  # what is needed, not the whole font


def test_nothing_to_show_is_no_figure(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    for folder in (tmp_path / "answers").iterdir():
        (folder / "done.json").unlink()
    assert gallery.draw_all(*numbers_of(tmp_path), tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()
    assert record.facts.get("pictures") is None


@pytest.mark.slow
def test_the_users_own_settings_do_not_matter(small: Path, tmp_path: Path) -> None:
    import matplotlib as mpl

    numbers, reader = numbers_of(small)
    plain_files = matrices.draw_srcc(numbers, reader, tmp_path / "plain")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.facecolor": "black"}):
        others = matrices.draw_srcc(numbers, reader, tmp_path / "other")
        assert mpl.rcParams["font.size"] == 20
    assert plain_files[2].read_bytes() == others[2].read_bytes()


def cell_texts(figure: Figure, title: str) -> dict[tuple[int, int], str]:
    (panel,) = [axes for axes in figure.axes if axes.get_title() == title]
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in panel.texts}


def test_the_cells_of_the_heat_maps(small: Path, kept: dict[str, Figure], tmp_path: Path) -> None:
    numbers, reader = numbers_of(small)
    matrices.draw_srcc(numbers, reader, tmp_path)
    matrices.draw_stability(numbers, reader, tmp_path)
    titles = ["LIVE", "CSIQ", "BID", "CLIVE"]
    seen = 0
    for row in numbers.rows:
        if row.method in ("TSN-IQA", "TSN-IQA-O") and row.order == "I" and row.metric in ("SRCC", "S"):
            name, start = ("fig_srcc", 0) if row.metric == "SRCC" else ("fig_stability", 1)
            place = titles.index(row.train_dataset) - start, titles.index(row.test_dataset)
            text = cell_texts(kept[name], row.method)[place]
            assert float(text.replace("−", "-")) == round(row.value, 2)
            seen += 1
    assert seen == 16 + 10 + 2 * 6
    assert len(cell_texts(kept["fig_srcc"], "TSN-IQA-O")) == 10  # it has no head for future tasks


def test_a_missing_cell_is_a_dash(tmp_path: Path, kept: dict[str, Figure]) -> None:
    record = recorded.record_tsn(tmp_path)
    (tmp_path / "answers" / record.answers["train-clive-0"]["live"] / "done.json").unlink()
    matrices.draw_srcc(*numbers_of(tmp_path), tmp_path)
    cells = cell_texts(kept["fig_srcc"], "TSN-IQA")
    assert cells[3, 0] == "–" and cells[0, 0] != "–"


def test_the_scatter_says_what_scipy_says(small: Path, kept: dict[str, Figure], tmp_path: Path) -> None:
    numbers, reader = numbers_of(small)
    scatter.draw_scatter(numbers, reader, tmp_path)
    source = best_method(numbers)
    assert source is not None
    values = {
        row.method: row.value
        for row in numbers.rows
        if (row.table, row.metric, row.setting) == ("III", "mSRCC", "Task-Agnostic")
    }
    assert source.record.rows[source.readout] == max(values, key=lambda m: values[m])
    for axes in kept["fig_scatter"].axes:
        scores, mos = (np.asarray(values, np.float64) for values in axes.lines[0].get_data())
        told = dict(line.split(maxsplit=1) for line in axes.texts[0].get_text().split("\n"))
        assert float(told["SRCC"]) == round(float(stats.spearmanr(scores, mos).statistic), 3)
        x, y = (np.asarray(values, np.float64) for values in axes.lines[1].get_data())
        mapped = np.interp(scores, x, y)
        raw, fitted = map(float, told["PLCC"].split(", "))
        assert raw == round(float(stats.pearsonr(scores, mos).statistic), 3)
        assert fitted == pytest.approx(stats.pearsonr(mapped, mos).statistic, abs=2e-3)
        assert float(told["RMSE"]) == pytest.approx(np.sqrt(np.mean((mapped - mos) ** 2)), rel=1e-2)


def test_predictions_that_rank_the_wrong_way_have_no_curve(tmp_path: Path, kept: dict[str, Figure]) -> None:
    from cliqa_bench.results.nodes import read_answers, write_answers

    record = recorded.record_single(tmp_path, "sl")
    path = tmp_path / "answers" / record.answers["sl-clive-0"]["live"] / "answers.npz"
    told = read_answers(path)
    write_answers(path, told["keys"], told["mos"], scores=-told["mos"][:, None].astype(np.float32))
    recorded.sign(path.parent)
    scatter.draw_scatter(*numbers_of(tmp_path), tmp_path)
    live = kept["fig_scatter"].axes[0]
    assert live.get_title() == "LIVE" and len(live.lines) == 1
    assert live.texts[0].get_text() == "SRCC −1.000\nPLCC −1.000, –\nRMSE –"


def test_orders_and_first_task_are_drawn_from_the_studies(
    small: Path, kept: dict[str, Figure], tmp_path: Path
) -> None:
    numbers, reader = numbers_of(small)
    orders.draw_orders(numbers, reader, tmp_path)
    orders.draw_first_task(numbers, reader, tmp_path)
    (panel,) = kept["fig_orders"].axes
    names = [label.get_text() for label in panel.get_yticklabels()]
    below = ["TSN-IQA-O", "TSN-IQA (last head)", "TSN-IQA (hard)", "TSN-IQA"]
    assert names == [f"{name}\nn = 24" for name in below]
    main = [
        row.value for row in numbers.rows if (row.table, row.metric, row.method) == ("III", "mPSI", "TSN-IQA")
    ]
    diamonds = [line for line in panel.lines if line.get_marker() == "D"]
    (own,) = (set(np.asarray(d.get_xdata())) for d in diamonds if 2.5 < np.asarray(d.get_ydata())[0] < 3)
    assert len(own) == 6, "of the paper's eight orders, restricted to four datasets, six differ"
    assert min(abs(value - main[0]) for value in own) < 1e-15
    texts = [text.get_text() for text in panel.texts]
    assert {"I, III", "V, VII", "I–VIII"} <= set(texts)


# ------------------------------------------------------------------------------------------------- Fig. 5


def test_fig_5_shows_what_the_gate_and_the_heads_say(small: Path) -> None:
    numbers, reader = numbers_of(small)
    source = gated_run(numbers)
    assert source is not None
    shown = shown_images(source, reader)
    assert [image.title for image in shown] == ["LIVE", "CSIQ", "BID", "CLIVE"]
    for k, (image, test) in enumerate(zip(shown, source.record.sequence, strict=True)):
        assert image.weights.sum() == pytest.approx(1) and len(image.scores) == 4
        assert image.quality == pytest.approx(float(image.weights @ image.scores), abs=1e-12)
        answers = reader.answers(source.record, 3, test)
        assert answers is not None
        place = answers.keys.tolist().index(f"{test}/{int(image.file.stem):03d}.png")
        told = read(answers, "gate", tau=32.0)
        assert told is not None and (image.quality, image.mos) == (told[place], answers.mos[place])
        # of its three pictures the lowest, the middle, the highest MOS, in turn
        assert image.mos == sorted(answers.mos[:3])[k % 3]


def test_fig_5_is_sorted_by_quality(small: Path, kept: dict[str, Figure], tmp_path: Path) -> None:
    draw_scale(*numbers_of(small), tmp_path)
    said = [text.get_text() for text in kept["fig_5"].texts if "MOS" in text.get_text()]
    qualities = [float(text.split("\n")[1].split("= ")[1].replace("−", "-")) for text in said]
    assert len(qualities) == 4 and qualities == sorted(qualities)


def spoil_list(folder: Path) -> None:
    (folder / "keys.json").write_text('{"file": 1}')


def spoil_image(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.write_bytes(b"no picture")


@pytest.mark.parametrize("spoil", [spoil_list, spoil_image])
def test_a_broken_picture_is_one_line(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    record_pictures(tmp_path, recorded.record_tsn(tmp_path))
    spoil(tmp_path / "pictures" / "bid-1")
    with pytest.raises(UserError, match=r"^[^\n]*bid-1[^\n]*delete[^\n]*run again$"):
        draw_scale(*numbers_of(tmp_path), tmp_path / "figures")


def test_without_pictures_or_gate_there_is_no_fig_5(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path / "a")
    record_pictures(tmp_path / "b", recorded.record_single(tmp_path / "b"))
    for name in "ab":
        assert draw_scale(*numbers_of(tmp_path / name), tmp_path / "figures") == []


# -------------------------------------------------------------------------------------------------- style


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_methods_are_told_apart_without_colour() -> None:
    styles = method_styles(f"m{i}" for i in range(20))
    looks = {(s["marker"], s["linestyle"]) for s in list(styles.values())[:8]}
    assert len(looks) == 8
    assert len({tuple(s.values()) for s in styles.values()}) == 20
    neighbours = [luminance(s["color"]) for s in styles.values()][:7]
    assert all(value < 0.75 for value in neighbours)  # visible on white


def test_names_are_no_mathematics() -> None:
    figure = Figure()
    text: Any = figure.text(0.5, 0.5, plain(HOSTILE))
    figure.draw_without_rendering()
    assert text.get_text().count(r"\$") == HOSTILE.count("$")
    assert plain("one two three", 7) == "one two\nthree" and not math.isnan(text.get_window_extent().width)


# -- drawn once ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_figures_are_drawn_again_only_when_something_changed(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings: list[Path] = []
    original = gallery.draw_all

    def counted(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[gallery.Drawn]:
        drawings.append(folder)
        return original(numbers, reader, folder)

    one = tuple(picture for picture in gallery.PICTURES if picture.name == "fig_srcc")
    monkeypatch.setattr(gallery, "PICTURES", one)
    monkeypatch.setattr(gallery, "draw_all", counted)
    numbers, reader = numbers_of(small)

    first = gallery.draw_changed(numbers, reader, tmp_path)
    before = {path: path.read_bytes() for path in first[0].files}
    assert gallery.draw_changed(numbers, reader, tmp_path) == first
    assert len(drawings) == 1
    # a file that is gone, a file that is another, a manifest that is broken, a number that is another
    first[0].files[0].unlink()
    assert gallery.draw_changed(numbers, reader, tmp_path) == first
    first[0].files[1].write_bytes(b"something else")
    assert gallery.draw_changed(numbers, reader, tmp_path) == first
    (tmp_path / gallery.KEPT).write_text("[]")
    assert gallery.draw_changed(numbers, reader, tmp_path) == first
    assert len(drawings) == 4
    assert {path: path.read_bytes() for path in first[0].files} == before
    rows = [row._replace(value=row.value / 2) for row in numbers.rows]
    gallery.draw_changed(replace(numbers, rows=rows), reader, tmp_path)
    assert len(drawings) == 5


def test_figures_are_drawn_again_when_a_picture_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_pictures = tuple(picture for picture in gallery.PICTURES if picture.name == "fig_5")
    monkeypatch.setattr(gallery, "PICTURES", of_pictures)
    out, folder = tmp_path / "runs", tmp_path / "report"
    folder.mkdir()
    record_pictures(out, recorded.record_tsn(out, sequence=["live", "bid"], order="live,bid", images=8))
    (out / "pictures" / "bid-1" / "done.json").rename(tmp_path / "done.json")  # its process had died
    gallery.draw_changed(*numbers_of(out), folder)
    lacking = (folder / "fig_5.svg").read_bytes()
    (tmp_path / "done.json").rename(out / "pictures" / "bid-1" / "done.json")
    gallery.draw_changed(*numbers_of(out), folder)
    assert (folder / "fig_5.svg").read_bytes() != lacking
