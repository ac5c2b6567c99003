"""What the server does with an aggregate: the server optimisers. Plain float64 numpy, leaf by leaf."""
