"""A results file as figures and as one page."""
