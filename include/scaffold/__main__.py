"""`make new-destination NAME=acme_mail`: write a destination's files and list what is to be filled in."""

from __future__ import annotations

import sys

from include.errors import ConfigurationError
from include.scaffold.destination import new_destination
from include.settings import ROOT


def main(arguments: list[str]) -> int:
    """The exit code: 0 when the files were written, 2 when the name cannot be used."""
    if len(arguments) != 1:
        print("give one name, as in: make new-destination NAME=acme_mail", file=sys.stderr)
        return 2
    try:
        written = new_destination(arguments[0], ROOT)
    except ConfigurationError as error:
        print(f"nothing was written: {error}", file=sys.stderr)
        return 2
    print("written:", *written.files, sep="\n  ")
    print("\nto be filled in, in this order (the contract suite fails at each until then):")
    print(*written.places, sep="\n")
    name = arguments[0]
    print(f"\n.venv/bin/python -m pytest -n 0 tests/include/destinations -k {name}")
    print(f"Airflow needs a pool and a connection: {name} and {name}_default (docs/destinations.md)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
