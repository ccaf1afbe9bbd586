"""SCAN and SCAN with labels: `scan` has the methods, the other modules what they are made of."""

from methods.scan.scan import SCAN, SSSCAN

__all__ = ["SCAN", "SSSCAN"]
