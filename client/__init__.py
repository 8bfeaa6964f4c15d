"""An owner of models: its model store, handlers, tuning and Flower ClientApp."""
