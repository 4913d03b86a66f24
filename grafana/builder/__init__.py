"""Dashboards as code: ``make dashboards`` writes grafana/dashboards/ from here.

Every query works for one worker and for 10,000: a panel shows a sum, a distribution, or the few highest.
"""
