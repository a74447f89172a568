"""Provider keys encrypted at rest: what stands in a file opens only with the master key, which stands in none.

    sealed = seal(master, "acme-fal", key)       `key_sealed: gAAAA...` of the account acme-fal
    key = unseal(master, "acme-fal", sealed)     None: another master key, another account, or altered

The cipher is Fernet (AES-128-CBC and HMAC-SHA256). `master` is one of its keys, or several parted by commas: the first
seals, all open, so a master key is changed by putting a fresh one first and sealing anew. What is sealed names its
account, so that a line copied to another account, and so to another address, opens nothing.
"""

from __future__ import annotations

PATTERN = r"^gAAAA[A-Za-z0-9_=-]+$"
"""How something sealed looks."""


class BadMaster(ValueError):
    """The master key is none."""


def fresh_master() -> str:
    """A fresh master key."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def check_master(master: str) -> None:
    """Raise `BadMaster` unless it can seal and open."""
    from cryptography.fernet import Fernet

    for part in master.split(","):
        try:
            Fernet(part.strip())
        except ValueError:
            raise BadMaster("must be 32 bytes in URL-safe base64, or several such parted by commas") from None


def seal(master: str, account: str, key: str) -> str:
    """A provider key as it may stand in a file."""
    from cryptography.fernet import Fernet

    return Fernet(master.split(",", maxsplit=1)[0].strip()).encrypt(f"{account}\n{key}".encode()).decode()


def unseal(master: str, account: str, sealed: str) -> str | None:
    """The key that was sealed for an account; None where this master key does not open it."""
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet

    box = MultiFernet([Fernet(part.strip()) for part in master.split(",")])
    try:
        named, _, key = box.decrypt(sealed.encode()).decode().partition("\n")
    except InvalidToken:
        return None
    return key if named == account else None
