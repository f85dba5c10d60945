"""Measurements of what things cost: data, search, losses, against the usual ways."""
