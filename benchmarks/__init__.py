if __name__ == "benchmarks":  # the folder lies at the top level of the checkout, its name does not
    raise ImportError(
        "import cliqa_bench.benchmarks instead: this folder is a part of the package cliqa_bench"
    )
