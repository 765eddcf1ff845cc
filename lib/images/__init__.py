"""Where images come from, and how they lie packed as uint8 arrays.

Uses `study`. Begin with `data.load`; `sources` says what there is to load, `toys` draws faces and rooms whose every
trait is known.
"""
