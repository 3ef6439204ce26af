"""Checks a finished run and packs it."""
