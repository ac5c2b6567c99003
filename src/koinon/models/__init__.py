"""What can be trained: models of the frameworks, seen through one protocol."""
