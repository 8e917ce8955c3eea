"""Where Django looks for what the console registers."""

from conversations.console import accounts, conversation, log

__all__ = ["accounts", "conversation", "log"]
