"""HM4SR and ATHWE: one network with optional stages."""
