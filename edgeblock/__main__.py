"""`python -m edgeblock` is the `edgeblock` command."""

import sys

from edgeblock.cli import main

sys.exit(main())
