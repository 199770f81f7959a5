"""`python -m reconpatch.cli` is the command `reconpatch`."""

from reconpatch.cli.main import main

main()
