"""The command line: what its words mean, and what each command does."""
