"""Tests of the local stack's own code: `python3 -m unittest discover`, standard library only."""
