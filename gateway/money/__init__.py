"""Money: what is set aside, what is owed, and whether the sellers agree."""
