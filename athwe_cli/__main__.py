"""`python -m athwe_cli` and the console script `athwe`."""

from athwe_cli.app import app


def main() -> None:
    """Run the command line."""
    app(prog_name="athwe")


if __name__ == "__main__":
    main()
