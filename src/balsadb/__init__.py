"""BalsaDB: a fault-tolerant, strongly consistent key-value database that speaks the Redis protocol."""

from balsadb.version import __version__

__all__ = ["__version__"]
