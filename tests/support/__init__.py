"""What several tests need: models, examples, oracles."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
