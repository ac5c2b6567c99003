"""The command line: ``koinon`` and its commands."""
