"""C.O.M.E.T.: watches a Discord community's services, its own process and its machine."""

__version__ = "0.1.0"
