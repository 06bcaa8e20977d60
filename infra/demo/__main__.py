"""`python -m infra.demo`."""

from __future__ import annotations

import sys

from infra.demo.demo import main

sys.exit(main())
