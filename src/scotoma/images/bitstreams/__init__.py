"""Streams of quantized latents: the container and the codecs."""
