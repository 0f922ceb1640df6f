"""Written in 2025. Type parameters with defaults came with Python 3.13."""
import sys
from copy import replace
from dataclasses import dataclass


@dataclass(frozen=True)
class Alert[Level = str]:
    level: Level
    text: str


alert = Alert("low", "disk 81% full")
alert = replace(alert, level="high")
print(f"alerts: {alert.level}, {alert.text}, Python {sys.version.split()[0]}")
