"""The tests mirror the tree of the packages that they test."""
