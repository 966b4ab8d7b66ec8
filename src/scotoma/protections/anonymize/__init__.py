"""Adaptive anonymization: private regions are destroyed, decisions are searched back."""
