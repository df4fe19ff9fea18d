"""`python -m fastpose` is the `fastpose` command."""

import sys

from fastpose.cli import main

sys.exit(main())
