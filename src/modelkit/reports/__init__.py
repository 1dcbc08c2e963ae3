"""Verdicts -> terminal table, JSON evidence, JUnit properties."""
