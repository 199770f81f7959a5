"""Outputs to the line: who is told of a verdict, and how.

`settings` is what the configuration says of each, `message` what they are told, `dispatch` who
tells them; the others each speak one protocol.
"""
