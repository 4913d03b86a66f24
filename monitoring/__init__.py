"""Files for Prometheus and Alertmanager, and the limits that they share with the dashboards."""
