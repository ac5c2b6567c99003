"""The coordinator over HTTPS: calls, pages, and the process that serves them."""
