"""Destinations: one file per system we write."""
