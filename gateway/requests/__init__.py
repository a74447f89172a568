"""The request path: from an authorised call to kept pictures and settled money."""
