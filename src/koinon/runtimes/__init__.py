"""Where chunks of clients run: this process, or worker processes beside it."""
