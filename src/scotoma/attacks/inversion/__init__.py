"""Networks that learn to rebuild pictures from releases."""
