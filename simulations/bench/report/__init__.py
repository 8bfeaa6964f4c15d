"""Pages of a run of the bench: HTML, and Markdown for the documentation."""
