"""From names to classes, ours and a user's."""
