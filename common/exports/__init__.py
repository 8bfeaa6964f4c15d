"""A request that has ended, in the forms of other tools: OpenLineage, MLflow, model cards."""
