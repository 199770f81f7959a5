"""Labelled photos: data sets, one model on them, benchmarks and their tables."""
