"""Trivet's encoder against its peers: `python -m infra.bench.encoder`, which says how it measures in `__main__`."""
