"""`python -m sepfast`."""

from sepfast.cli import main

if __name__ == "__main__":
    main()
