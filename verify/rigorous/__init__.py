"""Walks through a network whose results hold in real arithmetic, computed with NumPy alone.

What bounds print as certified and what certificates are checked with is computed here: interval
rules of every op, and later walks built on them. Nothing here searches, and nothing here is tuned.
"""
