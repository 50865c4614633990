"""What coordinator and worker both speak."""
