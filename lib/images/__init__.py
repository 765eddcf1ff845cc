"""Where images come from, and how they lie packed as uint8 arrays.

Uses `study`. Begin with `data.load`. `sources` says what a name means, `files` reads folders and archives, `labels`
what their names say, and `packing` decodes; `faces` and `rooms` draw images of known traits with one `pen`.
"""
