"""The machine: disk, locks, processes, signals, memory. Knows nothing of images."""
