"""Split networks: what leaves the camera is a quantized latent."""
