"""Models as unlearning sees them: heads, scopes, inputs and devices."""
