"""Dashboards: what is generated, whether Grafana takes it, and whether every query gives data."""
