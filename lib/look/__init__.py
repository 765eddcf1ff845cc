"""What people look at: figures, the explorer, claims and their verdicts, README's numbers, and the report's pages.

Uses all rooms; nothing uses it. Begin with `figures`, which every notebook imports; `claims`, `verdicts`, `numbers` read
in this order.
"""
