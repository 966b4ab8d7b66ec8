"""Smaller networks: fractional filters, quantization, coding."""
