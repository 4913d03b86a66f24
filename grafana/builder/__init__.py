"""Dashboards as code: ``make dashboards`` writes grafana/dashboards/ anew from here.

Every query holds for one worker and for 10,000: what is drawn is a sum, a distribution, or the few that stand out.
"""
