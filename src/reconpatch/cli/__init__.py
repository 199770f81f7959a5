"""The command line: one module for each group of commands, and the demonstration.

`main` is what `reconpatch` runs; `parts` is what commands share.
"""
