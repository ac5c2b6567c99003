"""Where a run is kept: the journal of its rounds, its models, its clients' states."""
