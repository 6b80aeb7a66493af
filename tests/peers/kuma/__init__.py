"""Uptime Kuma on loopback: the real one (`real`), a replayed one (`replay`), and a target."""
