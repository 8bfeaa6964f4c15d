"""Screens: what each page shows, as values that its template and its `.json` share."""
