"""Judges of a run. Each module checks one promise and can be read on its own."""
