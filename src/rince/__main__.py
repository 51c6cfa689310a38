"""``python -m rince``, for torchrun."""

import sys

from rince.cli.main import main

sys.exit(main())
