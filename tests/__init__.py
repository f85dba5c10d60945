"""Tests; small.py files beside the tests hold what several of them share."""
