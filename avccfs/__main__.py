"""`python -m avccfs` is the command `avccfs`."""

from avccfs.cli.main import main

if __name__ == "__main__":
    main()
