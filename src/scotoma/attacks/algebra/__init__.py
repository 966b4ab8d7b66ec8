"""What known pictures, or two models, give away by solving equations."""
