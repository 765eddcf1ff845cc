"""What a run is, what it is called, and who runs it: the engine.

Uses no other room, and imports no torch: planning a batch takes no second of it. Begin with `rows` reads a batch
file, `batch` runs it, `results` is what a notebook sees of it.
"""
