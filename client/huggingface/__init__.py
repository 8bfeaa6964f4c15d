"""Models of transformers and PEFT as an owner's, and their data as batches."""
