"""Measurements of what centers cost: time and memory of decoding and of losses, against the usual ways."""
