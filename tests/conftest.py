"""Test settings: hypothesis is derandomised, so that a run is the same everywhere."""

from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")
