"""The history of the schema. A change to ``master.store.tables`` comes with a new module in ``versions``."""
