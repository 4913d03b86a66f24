"""What Grafana is given: provisioning/ and dashboards/, and in builder/ the code that writes the dashboards."""
