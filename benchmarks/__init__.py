"""`make bench`: how fast searchapp is, against what the same machine gives without it.

Every ratio is measured in one run: the two sides take turns, with equal threads, and the median of the rounds counts.
"""
