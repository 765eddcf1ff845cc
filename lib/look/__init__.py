"""What people look at: figures, the explorer, claims and their verdicts, README's numbers, and the report's pages.

Uses all rooms; nothing uses it. Begin with `figures`, which every notebook imports; then `claims`, `verdicts` and
`numbers`, in this order.
"""
