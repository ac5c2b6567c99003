"""One party: joins, trains, sends, keeps its state and its receipts."""
