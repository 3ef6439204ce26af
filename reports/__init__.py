if __name__ == "reports":  # the folder lies at the top level of the checkout, its name does not
    raise ImportError("import cliqa_bench.reports, not reports: the folder is a part of the package cliqa_bench")
