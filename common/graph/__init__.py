"""The inheritance graph: records, rules, class names and formats. No torch."""
