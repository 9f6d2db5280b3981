"""Lessons: what only notebooks and courses need."""
