"""Where images come from, how they lie packed as uint8 arrays, and in which order nets meet them.

Uses `study`. Begin with `data.load`. `sources` says what a name means, `files` reads folders and archives, `labels`
what their names say, `pictures` decodes one image, `packing` all of them; `faces` and `rooms` draw images of known
traits.
"""
