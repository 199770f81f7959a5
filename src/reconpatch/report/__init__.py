"""Pictures and pages: overlays, the report of an inspection, HTML pages of one file."""
