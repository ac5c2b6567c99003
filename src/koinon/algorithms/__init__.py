"""One paper, one file: each returns an Algorithm."""
