"""``python -m archsearch.cli``: the command line by the interpreter that runs this, whatever the PATH has."""

from archsearch.cli import main

if __name__ == "__main__":
    main()
