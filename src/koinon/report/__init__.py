"""What a person sees of a run: its history, progress, curves, tables and pages."""
