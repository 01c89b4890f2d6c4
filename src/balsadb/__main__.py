"""`python -m balsadb` is the `balsadb` command."""

from balsadb.cli.main import main

if __name__ == "__main__":
    main()
