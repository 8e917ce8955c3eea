"""Whether this process is about to stop: whoever waits for long lets go then.

Nothing of Django here: the worker that serves us sets it.
"""

from threading import Event

begun = Event()
