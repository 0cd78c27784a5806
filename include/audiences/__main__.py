"""`python -m include.audiences`: read every audience file and say what is wrong, with file and line."""

from __future__ import annotations

import sys

from include.audiences.load import load_audiences


def main() -> int:
    """Print the audiences and the errors; 1 where there is an error."""
    loaded = load_audiences()
    for audience in loaded.audiences.values():
        targets = ", ".join(target.to for target in audience.destinations)
        print(f"ok  {audience.name}: {audience.label} > {targets}")
    for error in loaded.errors:
        print(f"--  {error}")
    return 1 if loaded.errors else 0


if __name__ == "__main__":
    sys.exit(main())
