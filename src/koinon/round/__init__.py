"""What a round means: cut batches, train a client, add it up, settle, evaluate, stop. No I/O, no clock."""
