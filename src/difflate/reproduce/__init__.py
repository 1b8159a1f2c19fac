"""Printed results of the papers, computed again."""
