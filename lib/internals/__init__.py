"""What the nets have learned inside (paper, section 6): walks, sums, filters, forgetting, memorisation.

Uses `nets`, `images` and `study`. Begin with `latent`, which moves through z; `attribution` explains D.
"""
