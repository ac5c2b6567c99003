"""What a client does with its examples: local training, its optimisers, corrections of its gradient."""
