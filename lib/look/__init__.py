"""What people look at: figures, the explorer, verdicts, and the report's pages.

Uses all rooms; nothing uses it. Begin with `figures`, which every notebook imports.
"""
