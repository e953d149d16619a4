"""Intervals and tests: resampling, DeLong, exact rates, guarantees, calibration."""
