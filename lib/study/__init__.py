"""What a run is, what it is called, what code made it, and the table of what came out.

Uses no other room, and imports no torch. Begin with `runs`, which is what a notebook sees of it; `records` are what
runs leave, and `tables` holds what came of all; `identity` names a run, `manifest` looks at the files behind it and
`syntax` at its code; `chance` is where random numbers and intervals come from.
"""
