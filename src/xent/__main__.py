"""``python -m xent``: the command line."""

from xent.cli.main import main

if __name__ == "__main__":
    main(prog_name="xent")
