"""A family of language models that knows fictitious authors, and what it gives away of them."""
