"""Selling: one module per seller of images, translating one contract into one dialect."""
