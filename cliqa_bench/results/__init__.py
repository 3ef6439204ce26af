"""What runs leave on the disk: nodes, answers, records, weights."""
