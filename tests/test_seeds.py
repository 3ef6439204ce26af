"""Seeds: fixed for ever, since every result hangs on them, and as many as there are lists of names."""

import os
import subprocess
import sys

import numpy as np

from cliqa_bench.seeds import rng_for, seed_for


def test_seeds_are_those_of_sha256sum():
    r"""For instance `printf 'str:crops\x1fstr:live\x1fint:0' | sha256sum`: the first 16 digits, halved."""
    assert seed_for("crops", "live", 0) == 0x1CAEC920E4EEF780 // 2
    assert seed_for("0", "live") == 0x439B2ED554E55E2F // 2
    assert seed_for("é") == 0x8A7856BDF6B88E99 // 2, "and fits into 63 bits"


def test_other_names_other_orders_and_other_kinds_have_other_seeds():
    names = [
        ("a", "b"),
        ("b", "a"),
        ("ab",),
        ("a",),
        ("a", "b", 0),
        ("a", "b", 1),
        ("a", "b", "0"),
        ("", "ab"),
    ]
    assert len({seed_for(*each) for each in names}) == len(names)


def test_a_seed_is_the_same_in_every_process():
    code = "from cliqa_bench.seeds import seed_for; print(seed_for('crops', 'live', 0))"
    for salt in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": salt}
        seed = int(subprocess.check_output([sys.executable, "-c", code], env=env))
        assert seed == seed_for("crops", "live", 0)


def test_the_generator_is_pcg64_of_the_seed():
    expected = np.random.Generator(np.random.PCG64(0x1CAEC920E4EEF780 // 2))
    assert (
        rng_for("crops", "live", 0).integers(1 << 62, size=5).tolist()
        == expected.integers(1 << 62, size=5).tolist()
    )
