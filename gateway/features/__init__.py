"""Use cases beyond the plain request, each a thin layer on `gateway.requests`."""
