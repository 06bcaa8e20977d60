"""`python -m trivet.cli`."""

from __future__ import annotations

import sys

from trivet.cli import main

sys.exit(main())
