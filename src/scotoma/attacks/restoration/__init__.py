"""What can be restored of regions that were painted over."""
