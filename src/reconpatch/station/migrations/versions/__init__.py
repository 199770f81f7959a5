"""One module a step; the newest names the one before it."""
