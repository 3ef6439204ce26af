"""One more dataset in a finished model, or one fewer: the old heads stay as they are."""
