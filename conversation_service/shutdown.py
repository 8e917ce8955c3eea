"""An event that is set when this process is about to stop: long waits then end.

The worker sets it, so this module must not import Django.
"""

from threading import Event

begun = Event()
