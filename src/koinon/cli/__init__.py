"""The command line: koinon demo, run, check, report."""
