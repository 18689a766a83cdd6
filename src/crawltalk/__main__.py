"""`python -m crawltalk`."""

import sys

from crawltalk.cli import main

sys.exit(main())
