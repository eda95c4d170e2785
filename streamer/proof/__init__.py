"""Measures what a run lets through: clips with known faces and plates, and a judge of finished files."""
