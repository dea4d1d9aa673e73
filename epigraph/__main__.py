"""``python -m epigraph`` is the command line."""

from epigraph.cli.main import main

if __name__ == "__main__":
    main()
