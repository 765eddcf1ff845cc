"""Where images come from, and how they lie packed as uint8 arrays.

Uses `study`. Begin with `data.load`; `sources` says what there is to load, `faces` and
`rooms` draw images whose every trait is known.
"""
