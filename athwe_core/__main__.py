"""`python -m athwe_core` starts the command line, as `python -m athwe_cli` does."""

if __name__ == "__main__":
    from athwe_cli.__main__ import main  # the only import of the command line in the core

    main()
