"""Pure functions on arrays and tensors; everything above is built from them."""
