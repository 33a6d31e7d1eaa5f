"""Time-aware, multi-modal sequential recommendation: HM4SR and ATHWE."""

__version__ = "0.2.0.dev0"
