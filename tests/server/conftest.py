"""What several tests of the server share."""

from certificates import certificates

__all__ = ["certificates"]
