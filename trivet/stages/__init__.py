"""What is done with a leased work item: one module per stage, each free of Celery.

A stage claims from the ledger, works, and tells the ledger; it may be killed at any instruction and run again.
"""

from __future__ import annotations
