"""`python -m disinherit`: the command, where its script is not on the path."""

from disinherit.cli.main import main

if __name__ == "__main__":
    main()
