"""One more dataset in a finished model, and one less: the old heads stay as they are."""
