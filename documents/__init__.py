"""Documents for people: what reports and pages share, from charts to their look."""
