if __name__ == "strategies":  # the folder lies at the top level of the checkout, its name does not
    raise ImportError(
        "import cliqa_bench.strategies instead: this folder is a part of the package cliqa_bench"
    )
