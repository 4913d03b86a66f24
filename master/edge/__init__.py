"""What stands between clients and the app: who may connect, for how long one may be slow, how often one may ask."""
