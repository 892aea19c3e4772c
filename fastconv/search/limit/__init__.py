"""Certify how good points can be at best."""
