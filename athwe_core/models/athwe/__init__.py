"""HM4SR and ATHWE: one network with optional stages."""

from athwe_core.models.athwe.spec import MODEL

__all__ = ["MODEL"]
