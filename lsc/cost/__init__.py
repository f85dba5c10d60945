"""Measurements of what things cost: data, objectives, search."""
