"""The web dashboard: pages over a coordinator with the visitor's token, or over folders of runs."""
