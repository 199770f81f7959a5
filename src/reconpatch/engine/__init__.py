"""The graph of the whole inspection: written once per model, run by an engine."""
