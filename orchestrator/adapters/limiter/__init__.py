"""The right to send: requests and tokens per minute, per lane, never over any 60-second window.

pace.py paces the requests, window.py counts tokens, bucket.py puts both together for one lane and
reacts to what the server says, limiter.py holds a bucket for each lane.
"""
