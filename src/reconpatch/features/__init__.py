"""Patch features p: the frozen backbone, levels and neighbourhoods, and where p is kept."""
