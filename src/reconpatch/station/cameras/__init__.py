"""Cameras and folders that photos come from.

A source is an entry of the station's configuration. Each has threads of its own, so that one that
is broken stops neither the others nor the station; what it takes goes the way of an uploaded photo.
"""
