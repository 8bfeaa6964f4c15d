"""The model store of an owner: weights, Fisher summaries and the ledger of unlearning."""
