"""Records the readings of every worker as time series, and reads them again.

``Recorder`` puts each update into a bucket of 15 seconds, whose mean, minimum and maximum of each field are one point.
Points are written twice: every 15 seconds those of all workers together, as one row of a journal, so that a master
that was killed recovers them; and a quarter of an hour of one worker as one compressed row, a chunk, which is what
``HistoryService`` reads.
"""
