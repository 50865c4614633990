"""`python -m haulier.cli`: the `haulier` command."""

from haulier.cli import run_cli

if __name__ == "__main__":
    run_cli()
