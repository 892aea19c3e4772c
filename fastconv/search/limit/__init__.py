"""Certify a lower limit of the error over all point sets."""
