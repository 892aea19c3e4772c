"""Rewrite graphs: fold constants, fuse, change formats."""
