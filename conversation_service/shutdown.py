"""An event that is set when this process is about to stop: long waits then end.

The worker sets it, so nothing here imports Django.
"""

from threading import Event

begun = Event()
