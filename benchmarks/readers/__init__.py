"""Label files of other people, read row by row."""
