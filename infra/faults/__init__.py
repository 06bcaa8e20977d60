"""Every fault that production brings, and what Trivet loses under it: python -m infra.faults [--row NAME]"""
