"""The check of health: the application answers, and so does its database."""

from urllib.request import urlopen

urlopen("http://127.0.0.1:8000/", timeout=5).read()
