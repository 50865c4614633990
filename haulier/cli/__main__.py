"""`python -m haulier.cli`: the `haulier` command."""

from haulier.cli import main

if __name__ == "__main__":
    main()
