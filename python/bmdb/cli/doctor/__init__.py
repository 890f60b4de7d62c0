"""`bmdb doctor`: looks at a database the way a worker meets it, and says what to do about what it finds."""

from bmdb.cli.doctor.examination import examine
from bmdb.cli.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
