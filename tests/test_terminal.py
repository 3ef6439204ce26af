"""The one table for the terminal: what `list`, `plan`, `data check`, `bench` and the end of a run print."""

from cliqa_bench.terminal import text_table

ROWS = [["bid", "3", "done"], ["live", "12", ""]]


def test_columns_stand_side_by_side() -> None:
    assert text_table(ROWS).splitlines() == ["bid   3   done", "live  12"]
    right = text_table(ROWS, ["set", "n", "state"], right={1}).splitlines()
    assert right == ["set    n  state", "bid    3  done", "live  12"]
    ruled = text_table(ROWS, ["set", "n", "state"], ruled=True).splitlines()
    assert ruled == ["set   n   state", "----  --  -----", "bid   3   done", "live  12"]


def test_of_nothing_only_the_heads_are_left() -> None:
    assert text_table([], ["set", "n"]) == "set  n"
    assert text_table([]) == ""
