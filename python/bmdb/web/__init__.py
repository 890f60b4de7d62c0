"""The debug pages: what each machine is doing, why it is not worked on, and how to free it. Needs the extra `web`."""

from bmdb.web.access import new_token
from bmdb.web.application import app

__all__ = ["app", "new_token"]
