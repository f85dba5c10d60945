"""A finished run in use: load, embed, predict."""
