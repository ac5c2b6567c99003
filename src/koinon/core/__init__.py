"""The vocabulary: nine nouns and the law by which they may be combined. numpy only."""
