"""Speed and memory, measured side by side: what `cliqa-bench bench` does."""
