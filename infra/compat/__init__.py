"""`make compat`: clients that others wrote for Mixpeek, against a Trivet with real workers.

Each flow in `flows/` runs in a virtual environment of its own that holds the published clients and nothing of Trivet.
"""
