"""The report of a release: what one more dataset changes in a model, at most and in fact."""
