"""The store of the coordinator: tables, transactions and the audit log."""
