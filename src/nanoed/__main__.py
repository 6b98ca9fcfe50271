"""`python -m nanoed` is the same program as `nanoed`."""

from nanoed.studies.cli import main

if __name__ == "__main__":
    main()
