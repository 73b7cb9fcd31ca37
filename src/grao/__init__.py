"""grao: align language models from demonstrations and rewards in one loss."""

from grao.version import __version__

__all__ = ["__version__"]
