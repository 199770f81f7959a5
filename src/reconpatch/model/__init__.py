"""A fitted model and its file: inspection, ensembles, parity of engines, versions compared."""
