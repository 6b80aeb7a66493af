"""Measurements behind every number the README gives."""
