"""What statistics of a release alone give away."""
