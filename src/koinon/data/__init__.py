"""Clients and their examples: datasets, partitioners, sources."""
