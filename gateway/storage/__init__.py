"""What must be remembered and what must be served: one folder per seam, one file per backend."""
