"""`python -m camelid` is the command line."""

from camelid.cli import main

if __name__ == "__main__":
    main()
