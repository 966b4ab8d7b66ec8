"""Black-box search: one way to ask and tell, fractal decomposition, and other people's methods."""
