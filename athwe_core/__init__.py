"""Time-aware, multi-modal sequential recommendation: HM4SR and ATHWE."""

__version__ = "0.1.0"
