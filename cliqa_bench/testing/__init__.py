"""Checks that a strategy meets the contract, for its author's own tests."""

from cliqa_bench.testing.contract import check_strategy

__all__ = ["check_strategy"]
