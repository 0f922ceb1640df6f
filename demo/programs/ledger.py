"""Written in 2020. Python 3.10 removed the collections names it imports."""
from collections import Mapping, OrderedDict
import sys


def total(accounts: Mapping) -> int:
    return sum(accounts.values())


accounts = OrderedDict(rent=1200, food=430, books=85)
print(f"ledger: {total(accounts)} over {len(accounts)} accounts,"
      f" Python {sys.version.split()[0]}")
