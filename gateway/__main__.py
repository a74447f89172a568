"""`python -m gateway`, and the `pixelgate` command of an installed wheel."""

from __future__ import annotations

from gateway.cli import main

if __name__ == "__main__":
    main()
