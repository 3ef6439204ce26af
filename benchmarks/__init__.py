if __name__ == "benchmarks":  # the folder is at the top level of the checkout, its import name is not
    raise ImportError(
        "import cliqa_bench.benchmarks instead: this folder is a part of the package cliqa_bench"
    )
