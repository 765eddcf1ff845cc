"""Helpers of the DCGAN replication study, in rooms: study < images < nets < gan, probe < internals < look.

A room uses those before it, never one after it. Images are float32 NCHW in [-1, 1] everywhere but in `images` (uint8 at
rest), `look.figures` and `gan.conditional` ([0, 1], as the authors have it).
"""
