"""``python -m boundflow_core`` is ``boundflow``."""

from __future__ import annotations

import sys

from boundflow_core.cli.main import main

sys.exit(main())
